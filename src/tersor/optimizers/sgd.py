"""Stochastic gradient descent with momentum."""

from dataclasses import dataclass

import torch

from tersor.optimizers.groups import as_groups, is_fusible
from tersor.optimizers.registry import Parameters, check_ranges, recipe


@recipe("sgd")
@dataclass(frozen=True, slots=True)
class SGD:
    r"""Gradient descent with momentum, by default Nesterov's.

    $$g \leftarrow g + \lambda w, \quad m \leftarrow \mu m + g, \quad
      w \leftarrow w - \eta\,(g + \mu m) \;\text{(Nesterov)} \;\text{or}\; w - \eta m$$

    The first step sets `m = g`. torch's fused kernel runs it in one pass.

    Attributes:
        lr: learning rate, above zero.
        momentum: weight of the past direction, in [0, 1).
        nesterov: look ahead along the new direction; needs momentum above zero, ignored without.
        weight_decay: L2 penalty, coupled with the gradient.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = SGD(lr=0.1).build([w])
        >>> w.grad = torch.tensor([1.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.81

    Source:
        Sutskever et al., On the importance of initialization and momentum in deep learning, ICML 2013,
        in the form of torch.optim.SGD.
    """

    lr: float
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        groups = as_groups(parameters)
        return torch.optim.SGD(
            groups,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            weight_decay=self.weight_decay,
            fused=is_fusible(groups),
        )
