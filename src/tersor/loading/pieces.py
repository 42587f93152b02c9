"""The shape steps of converted networks as modules, so that surgery can solve for the sizes that they hold."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Reshape(nn.Module):
    """Give every sample the shape `shape`; one length may be -1.

    Example:
        >>> Reshape((2, -1))(torch.zeros(5, 6)).shape
        torch.Size([5, 2, 3])
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with the axes after the batch reshaped."""
        return x.reshape(x.shape[0], *self.shape)


class Permute(nn.Module):
    """Reorder all axes, the batch included."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` with its axes in the order of `axes`."""
        return x.permute(self.axes)

    def extra_repr(self) -> str:
        """Return the order of the axes."""
        return str(self.axes)


class Pad(nn.Module):
    """Pad the last axes with a constant; `amounts` as in `torch.nn.functional.pad`."""

    def __init__(self, amounts: tuple[int, ...], value: float = 0.0, mode: str = "constant") -> None:
        super().__init__()
        self.amounts, self.value, self.mode = amounts, value, mode

    def forward(self, x: Tensor) -> Tensor:
        """Return the padded tensor."""
        if self.mode != "constant":
            return functional.pad(x, self.amounts, mode=self.mode)
        return functional.pad(x, self.amounts, value=self.value)

    def extra_repr(self) -> str:
        """Return the amounts."""
        return str(self.amounts)


class Reduce(nn.Module):
    """Reduce over axes: `mean`, `sum`, `amax` or `amin`."""

    def __init__(self, how: str, axes: tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.how, self.axes, self.keepdim = how, axes, keepdim

    def forward(self, x: Tensor) -> Tensor:
        """Return the reduced tensor."""
        return _REDUCTIONS[self.how](x, self.axes, self.keepdim)

    def extra_repr(self) -> str:
        """Return what is reduced."""
        return f"{self.how}, {self.axes}"


_REDUCTIONS = {"mean": torch.mean, "sum": torch.sum, "amax": torch.amax, "amin": torch.amin}


class Scale(nn.Module):
    """`x * scale + offset` with constants that broadcast."""

    scale: Tensor
    offset: Tensor

    def __init__(self, scale: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled tensor."""
        return x * self.scale + self.offset


class MaskedMean(nn.Module):
    """Mean over the positions that a mask keeps; with none kept, zero."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return means (samples, features) of (samples, positions, features)."""
        kept = mask.to(x.dtype).unsqueeze(-1)
        return (x * kept).sum(1) / kept.sum(1).clamp(min=1.0)
