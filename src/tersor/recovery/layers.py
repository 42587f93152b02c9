"""Layer-wise least squares: each linear layer is refitted to what the teacher's layer gives."""

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from tersor.loading.task import Batch
from tersor.pruning.least_squares import least_squares
from tersor.recovery.norms import reestimate_norms
from tersor.recovery.taps import batch_statistics, execution_order, first_tensor, observe

#: Rows of inputs that one fit uses at most; more change a fit of some hundred columns little.
_ROWS = 32_768

#: Layers with more inputs are left alone: the cost of a fit grows with the cube.
_WIDEST = 4096

#: Teacher's output channels that the student's layer has, by layer name, in the student's order.
Kept = Mapping[str, Sequence[int]]


def refit_layers(
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    *,
    kept: Kept | None = None,
    masked: Collection[str] = (),
    ridge: float = 0.01,
) -> int:
    r"""Replace, in place, weights and biases by those that best repeat the teacher's layers.

    $$W^* = \arg\min_W \lVert X_s W - Y_t \rVert^2 + \lambda \lVert W - W_0 \rVert^2$$

    layer after layer in the order of execution. `X_s` is what reaches the layer in the student, whose earlier
    layers are refitted already; `Y_t` is what the teacher's layer of the same name gives, on the channels
    that were kept; the bias is a column of ones. Linear layers and ungrouped convolutions take part; a layer
    without a teacher of its name, or whose channels cannot be told apart, is left alone. A layer with held zeros only
    gets its bias corrected. Norm statistics are re-estimated at the end.

    Args:
        student: in eval mode; changed.
        teacher: in eval mode; only run.
        batches: calibration samples.
        kept: teacher's channels of each layer with fewer outputs than the teacher's.
        masked: names of parameters with held zeros.
        ridge: lambda in units of the mean diagonal of the Gram matrix.

    Returns:
        The number of layers refitted.

    Example:
        >>> teacher, student = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
        >>> refit_layers(student, teacher, [Batch((x,), None, tuple(range(64)))], ridge=1e-9)
        1
        >>> torch.allclose(student.weight, teacher.weight, atol=1e-4)
        True

    Source:
        He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Networks, ICCV 2017, equation 1 (its second
        step). https://arxiv.org/abs/1707.06168
    """
    count = 0
    with batch_statistics(student):
        for name in execution_order(student, batches[0], _candidates(student, teacher)):
            keep = _channels(name, student, teacher, kept or {})
            if keep is not None:
                count += _refit(name, student, teacher, batches, keep, masked, ridge)
    reestimate_norms(student, batches)
    return count


def _candidates(student: nn.Module, teacher: nn.Module) -> list[str]:
    theirs = dict(teacher.named_modules())
    return [
        name
        for name, layer in student.named_modules()
        # The exact type: a subclass may do something else in forward, such as rounding.
        if type(layer) in (nn.Linear, nn.Conv2d)
        and type(theirs.get(name)) is type(layer)
        and (type(layer) is nn.Linear or (layer.groups == 1 and layer.padding_mode == "zeros"))
    ]


def _channels(name: str, student: nn.Module, teacher: nn.Module, kept: Kept) -> list[int] | None:
    ours, theirs = (model.get_parameter(f"{name}.weight").shape[0] for model in (student, teacher))
    if name in kept:
        return list(kept[name])
    return list(range(ours)) if ours == theirs else None


def _refit(
    name: str,
    student: nn.Module,
    teacher: nn.Module,
    batches: Sequence[Batch],
    keep: list[int],
    masked: Collection[str],
    ridge: float,
) -> bool:
    layer, pairs = student.get_submodule(name), []
    for index, batch in enumerate(batches):
        x = first_tensor(observe(student, [batch], [name], stop=True)[name].arguments[0][0])
        y = first_tensor(observe(teacher, [batch], [name], stop=True)[name].results[0])
        sampled = (
            None if x is None or y is None else _sampled(layer, x, y, _quota(layer) // len(batches), index)
        )
        if sampled is None:
            return False
        pairs.append(sampled)
    x, y = (torch.cat(parts).double() for parts in zip(*pairs, strict=True))
    _solve(layer, x, y[:, keep], ridge, bias_only=f"{name}.weight" in masked)
    return True


def _quota(layer: nn.Module) -> int:
    """Rows for a fit: enough for its columns, within 256 MiB of float64."""
    columns = layer.get_parameter("weight").flatten(1).shape[1]
    return min(_ROWS, 2**25 // columns)


def _sampled(layer: nn.Module, x: Tensor, y: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor] | None:
    """Return `count` random rows of input and output; None where they do not match.

    A few samples at a time: unfolded images are large.
    """
    if len(x) != len(y):
        return None
    generator = torch.Generator().manual_seed(seed)
    pieces: list[tuple[Tensor, Tensor]] = []
    share = max(1, count * 8 // len(x))
    for some_x, some_y in zip(x.split(8), y.split(8), strict=True):
        rows, outputs = _rows(layer, some_x), _outputs(layer, some_y)
        if len(rows) != len(outputs):
            return None
        chosen = torch.randperm(len(rows), generator=generator)[:share].to(x.device)
        pieces.append((rows[chosen], outputs[chosen]))
    return torch.cat([rows for rows, _ in pieces]), torch.cat([outputs for _, outputs in pieces])


@torch.no_grad()
def _solve(layer: nn.Module, x: Tensor, y: Tensor, ridge: float, *, bias_only: bool) -> None:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    old = layer.weight.detach().flatten(1).double().T
    if layer.bias is None:
        centre_x, centre_y = torch.zeros(x.shape[1]).to(x), torch.zeros(y.shape[1]).to(y)
    else:
        centre_x, centre_y = x.mean(0), y.mean(0)
    x, y = x - centre_x, y - centre_y
    new = old if bias_only else least_squares(x.T @ x, x.T @ y, old, ridge)
    layer.weight.copy_(new.T.reshape(layer.weight.shape))
    if layer.bias is not None:
        layer.bias.copy_(centre_y - centre_x @ new)


def _rows(layer: nn.Module, x: Tensor) -> Float[Tensor, "rows size"]:
    """Inputs of a layer as rows that its flattened weight multiplies."""
    if isinstance(layer, nn.Conv2d):
        if isinstance(layer.padding, str):
            x = F.pad(x, layer._reversed_padding_repeated_twice)
        padding = 0 if isinstance(layer.padding, str) else layer.padding
        columns = F.unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
        return columns.transpose(1, 2).flatten(0, 1)
    return x.flatten(0, -2)


def _outputs(layer: nn.Module, y: Tensor) -> Float[Tensor, "rows out"]:
    return y.flatten(2).transpose(1, 2).flatten(0, 1) if isinstance(layer, nn.Conv2d) else y.flatten(0, -2)
