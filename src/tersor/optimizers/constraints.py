"""Penalties applied exactly after each step. Zeros that stay are `tersor.surgery.hold`'s."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from tersor._check import positive
from tersor.errors import ArgumentError

#: Tensors whose slices along an axis belong to the same unit: a coupled group of channels.
Members: TypeAlias = Sequence[tuple[Tensor, int]]


class Penalty(Protocol):
    """A convex penalty with a known proximal step."""

    def shrink(self, members: Members, lr: float) -> None:
        """Replace the members, in place, by the minimiser of penalty plus squared distance over `2 lr`."""
        ...


@dataclass(frozen=True, slots=True)
class L1:
    r"""Soft thresholding: small entries become exactly zero.

    $$w \leftarrow \mathrm{sign}(w) \max(|w| - \eta \lambda, 0)$$

    Attributes:
        strength: lambda, above zero.

    Raises:
        ArgumentError: if the strength is not positive.

    Example:
        >>> w = torch.tensor([0.5, -0.05])
        >>> L1(1.0).shrink([(w, 0)], lr=0.1)
        >>> w
        tensor([0.4000, -0.0000])

    Source:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm, SIAM J. Imaging Sci. 2009, equation 1.5.
    """

    strength: float

    def __post_init__(self) -> None:
        positive("strength", self.strength)

    def shrink(self, members: Members, lr: float) -> None:
        """Shrink every entry by itself."""
        for tensor, _ in members:
            tensor.copy_(tensor.sign() * (tensor.abs() - lr * self.strength).clamp_min_(0))


@dataclass(frozen=True, slots=True)
class GroupLasso:
    r"""Shrink whole units: a weak unit becomes zero in every member at once.

    $$w_u \leftarrow w_u \max\Bigl(1 - \frac{\eta\lambda}{\lVert w_u \rVert_2}, 0\Bigr)$$

    where `w_u` holds the entries of unit `u` in all members.

    Attributes:
        strength: lambda, above zero.

    Raises:
        ArgumentError: if the strength is not positive.

    Example:
        >>> w = torch.tensor([[3.0, 4.0], [0.03, 0.04]])
        >>> GroupLasso(1.0).shrink([(w, 0)], lr=1.0)
        >>> w
        tensor([[2.4000, 3.2000],
                [0.0000, 0.0000]])

    Source:
        Yuan and Lin, Model selection and estimation in regression with grouped variables, JRSS B 68, 2006.
    """

    strength: float

    def __post_init__(self) -> None:
        positive("strength", self.strength)

    def shrink(self, members: Members, lr: float) -> None:
        """Shrink each unit by its norm over all members."""
        squares = [
            tensor.movedim(axis, 0).reshape(tensor.shape[axis], -1).square().sum(1)
            for tensor, axis in members
        ]
        norm = torch.stack(squares).sum(0).sqrt()
        factor = (1 - lr * self.strength / norm.clamp_min(1e-30)).clamp_min_(0)
        for tensor, axis in members:
            tensor.movedim(axis, 0).mul_(factor.view(-1, *[1] * (tensor.dim() - 1)))


def penalize(
    optimizer: torch.optim.Optimizer, penalty: Penalty, groups: Sequence[Members]
) -> Callable[[], None]:
    """Apply the proximal step of `penalty` after every step of `optimizer`, at its learning rate.

    Args:
        optimizer: any torch optimizer.
        penalty: `L1` or `GroupLasso`.
        groups: coupled members; the learning rate is that of the first member's group.

    Returns:
        A function that ends it.

    Raises:
        ArgumentError: if a first member is not trained by `optimizer`.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([0.05, 1.0]))
        >>> optimizer = torch.optim.SGD([w], lr=0.1)
        >>> end = penalize(optimizer, L1(1.0), [[(w, 0)]])
        >>> w.grad = torch.zeros(2)
        >>> optimizer.step()
        >>> w.data
        tensor([0.0000, 0.9000])
    """
    owner = {id(p): index for index, group in enumerate(optimizer.param_groups) for p in group["params"]}
    if any(id(members[0][0]) not in owner for members in groups):
        raise ArgumentError("A tensor to penalize is not among the optimizer's parameters.")

    @torch.no_grad()
    def after(*_: Any) -> None:
        for members in groups:
            penalty.shrink(members, optimizer.param_groups[owner[id(members[0][0])]]["lr"])

    return optimizer.register_step_post_hook(after).remove
