"""Image models of `timm`, and layers of torch itself, with random weights and small inputs."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from bench.coverage.zoo import Unbuildable, stirred

TIMM = Path(__file__).with_name("timm.txt").read_text().split()
#: Sides of images that are tried, smallest first; the last resort is what the model was made for.
SIDES = (64, 96, 128)


def build_timm(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a model of `timm` at the smallest image that it takes, and one such image."""
    create = creator()
    for side in (*SIDES, None):
        for sized in (True, False):
            made = _tried(create, name, side, sized=sized)
            if made is not None:
                return made
    raise Unbuildable("it runs on no size of image that was tried")


def creator() -> Callable[..., nn.Module]:
    """Return `timm.create_model`; of torchvision, which it imports, it needs no compiled operator."""
    try:
        import torchvision  # noqa: F401  # fails where its operators were compiled for another torch
    except RuntimeError:
        sys.modules["torchvision._meta_registrations"] = ModuleType("torchvision._meta_registrations")
    import timm

    return timm.create_model


def _tried(
    create: Callable[..., nn.Module], name: str, side: int | None, *, sized: bool
) -> tuple[nn.Module, tuple[Tensor, ...]] | None:
    torch.manual_seed(0)
    options = {"img_size": side} if sized and side else {}
    try:
        model = create(name, pretrained=False, num_classes=10, **options).eval()
        size = side or model.pretrained_cfg["input_size"][-1]
        image = torch.randn(1, 3, size, size)
        with torch.no_grad():
            model(image)
            model(image)  # some keep a table of the first size that they see
    except Unbuildable:
        raise
    except Exception:  # a size that the model does not take may raise anything
        return None
    return stirred(model), (image,)


class Recurrent(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.first, self.layer, self.last = nn.Linear(7, 12), layer, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return an answer for every step."""
        return self.last(self.layer(self.first(x))[0])


class Attention(nn.Module):
    """`nn.MultiheadAttention` between two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(7, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Attend to oneself."""
        x = self.first(x)
        return self.last(x + self.attention(x, x, x, need_weights=False)[0])


def _sequence() -> tuple[Tensor, ...]:
    return (torch.randn(2, 5, 7),)


def _encoder(**options: object) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **options)  # type: ignore[arg-type]  # options of torch
    return nn.Sequential(
        nn.Linear(7, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3)
    )


class Translator(nn.Module):
    """`nn.Transformer` with linear layers around it."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target, self.last = nn.Linear(7, 16), nn.Linear(7, 16), nn.Linear(16, 3)
        self.body = nn.Transformer(16, 4, 2, 2, 24, batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Read one sequence, write another."""
        return self.last(self.body(self.source(source), self.target(target)))


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "LSTM": (lambda: Recurrent(nn.LSTM(12, 16, 2, batch_first=True), 16), _sequence),
    "LSTM-bidirectional": (
        lambda: Recurrent(nn.LSTM(12, 16, 2, batch_first=True, bidirectional=True), 32), _sequence,
    ),
    "LSTM-projected": (lambda: Recurrent(nn.LSTM(12, 16, proj_size=6, batch_first=True), 6), _sequence),
    "GRU": (lambda: Recurrent(nn.GRU(12, 16, 2, batch_first=True), 16), _sequence),
    "RNN": (lambda: Recurrent(nn.RNN(12, 16, batch_first=True), 16), _sequence),
    "MultiheadAttention": (Attention, _sequence),
    "TransformerEncoder": (_encoder, _sequence),
    "TransformerEncoder-prenorm": (lambda: _encoder(norm_first=True, activation="gelu"), _sequence),
    "Transformer": (Translator, lambda: (torch.randn(2, 5, 7), torch.randn(2, 4, 7))),
}  # fmt: skip


def build_layer(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a small model around a layer of torch, and inputs for it."""
    torch.manual_seed(0)
    model, inputs = LAYERS[name]
    return stirred(model()), inputs()
