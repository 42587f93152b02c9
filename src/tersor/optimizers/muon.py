"""Muon: momentum made orthogonal, for matrices; AdamW for the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.optimizers.groups import as_groups, is_fusible
from tersor.optimizers.registry import Parameters, check_ranges, recipe

#: Coefficients of the quintic iteration: steep at zero, so that small singular values grow fast.
QUINTIC = (3.4445, -4.7750, 2.0315)


@recipe("muon")
@dataclass(frozen=True, slots=True)
class Muon:
    r"""Step along the nearest (semi-)orthogonal matrix to the momentum.

    $$m \leftarrow \mu m + (1 - \mu) g, \quad u = \mathrm{NS}\bigl((1 - \mu) g + \mu m\bigr), \quad
      w \leftarrow (1 - \eta\lambda) w - 0.2 \sqrt{\max(a, b)}\, \eta\, u$$

    for a weight of `a` rows and `b` columns. A convolution counts as the matrix (out, in * height * width). NS
    is `orthogonalize`, in float32: processors without 16-bit matrix units are over ten times slower
    in bfloat16. The factor makes the size of the step that of AdamW, so AdamW's learning rate fits.
    Groups with `kind` other than `matrix`, and tensors with fewer than two axes, get AdamW.

    Attributes:
        lr: learning rate, above zero.
        momentum: mu, in [0, 1).
        steps: iterations of NS.
        beta1: of AdamW, for the rest.
        beta2: of AdamW, for the rest.
        eps: of AdamW, for the rest.
        weight_decay: decoupled, for all.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.zeros(4, 4))
        >>> optimizer = Muon(lr=1.0, weight_decay=0.0).build([w])
        >>> w.grad = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        >>> optimizer.step()
        >>> bool(((w.diag() / -0.4 - 1).abs() < 0.35).all())
        True

    Source:
        Jordan et al., Muon, 2024. https://kellerjordan.github.io/posts/muon/. Scaling: Liu et al., Muon is
        Scalable for LLM Training, 2025, section 2.2. https://arxiv.org/abs/2502.16982
    """

    lr: float
    momentum: float = 0.95
    steps: int = 5
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        return _Muon(_split(as_groups(parameters)), self)


def orthogonalize(matrix: Float[Tensor, "rows columns"], steps: int = 5) -> Float[Tensor, "rows columns"]:
    r"""Push all singular values of `matrix` towards 1 and keep its singular vectors.

    $$X \leftarrow a X + (b A + c A^2) X, \qquad A = X X^\top, \; X_0 = M / \lVert M \rVert_F$$

    Five steps bring singular values above 1 per cent of the norm into about [0.7, 1.2], which is near
    enough for a direction. The arithmetic is in float32, or float64 for float64.

    Args:
        matrix: any floating dtype.
        steps: iterations.

    Example:
        >>> values = torch.linalg.svdvals(orthogonalize(torch.diag(torch.tensor([1.0, 5.0, 9.0]))))
        >>> bool(((values > 0.6) & (values < 1.3)).all())
        True

    Source:
        Jordan et al. 2024, section "The design of Newton-Schulz".
    """
    a, b, c = QUINTIC
    x = matrix if matrix.dtype == torch.float64 else matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (torch.linalg.vector_norm(x) + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


class _Muon(torch.optim.Optimizer):
    def __init__(self, groups: list[dict[str, Any]], recipe: Muon) -> None:
        shared: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
        rest = [group for group in groups if group["kind"] != "matrix"]
        self._adamw = None
        if rest:
            betas = (recipe.beta1, recipe.beta2)
            self._adamw = torch.optim.AdamW(
                rest, betas=betas, eps=recipe.eps, fused=is_fusible(rest), **shared
            )
            shared = {**self._adamw.defaults, **shared}
        super().__init__(groups, {**shared, "momentum": recipe.momentum, "steps": recipe.steps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride] - torch overloads it
        """Take one step; parameters without a gradient stay as they are."""
        value = None
        if closure is not None:
            with torch.enable_grad():
                value = closure()
        for group in self.param_groups:
            if group["kind"] == "matrix":
                for parameter in group["params"]:
                    self._turn(parameter, group)
        if self._adamw is not None:
            # Loading a state replaces both; AdamW must work on what this optimizer saves.
            self._adamw.state = self.state
            self._adamw.param_groups = [group for group in self.param_groups if group["kind"] != "matrix"]
            self._adamw.step()
        return value

    def _turn(self, parameter: Tensor, group: dict[str, Any]) -> None:
        if parameter.grad is None:
            return
        if not self.state[parameter]:
            self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        momentum = self.state[parameter]["momentum"]
        momentum.lerp_(parameter.grad, 1 - group["momentum"])
        ahead = parameter.grad.lerp(momentum, group["momentum"]).flatten(1)
        size = 0.2 * max(ahead.shape) ** 0.5 * group["lr"]
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(orthogonalize(ahead, group["steps"]).mul_(size).view(parameter.shape))


def _split(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every group a `kind`; groups without one are split into matrices and the rest."""
    result: list[dict[str, Any]] = []
    for group in groups:
        if "kind" in group:
            result.append(group)
            continue
        matrices = [p for p in group["params"] if p.dim() >= 2]
        rest = [p for p in group["params"] if p.dim() < 2]
        result += [
            {**group, "params": p, "kind": kind} for kind, p in (("matrix", matrices), ("vector", rest)) if p
        ]
    return result
