"""Adagrad."""

from dataclasses import dataclass

import torch

from tersor.optimizers.groups import as_groups, trainable
from tersor.optimizers.registry import Parameters, check_ranges, recipe


@recipe("adagrad")
@dataclass(frozen=True, slots=True)
class Adagrad:
    r"""Steps divided by the root of the sum of all squared gradients so far.

    $$g \leftarrow g + \lambda w, \quad s \leftarrow s + g^2, \quad
      w \leftarrow w - \frac{\eta}{1 + (t - 1)\gamma} \frac{g}{\sqrt{s} + \epsilon}$$

    torch's fused kernel runs it in one pass on the CPU.

    Attributes:
        lr: learning rate, above zero.
        lr_decay: gamma, decay of the learning rate with the step t.
        initial: value of `s` before the first step.
        eps: added to the denominator.
        weight_decay: L2 penalty, coupled with the gradient.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adagrad(lr=0.1).build([w])
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Source:
        Duchi, Hazan and Singer, Adaptive Subgradient Methods, JMLR 12, 2011, section 1.1, diagonal case.
    """

    lr: float
    lr_decay: float = 0.0
    initial: float = 0.0
    eps: float = 1e-10
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        groups = as_groups(parameters)
        # The fused kernel exists for the CPU only.
        on_cpu = all(t.is_floating_point() and t.device.type == "cpu" for t in trainable(groups))
        return torch.optim.Adagrad(
            groups,
            lr=self.lr,
            lr_decay=self.lr_decay,
            initial_accumulator_value=self.initial,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=on_cpu,
        )
