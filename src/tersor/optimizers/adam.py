"""Adam."""

from dataclasses import dataclass

import torch

from tersor.optimizers.groups import as_groups, is_fusible
from tersor.optimizers.registry import Parameters, check_ranges, recipe


@recipe("adam")
@dataclass(frozen=True, slots=True)
class Adam:
    r"""Steps of adaptive size from running means of the gradient and of its square.

    $$g \leftarrow g + \lambda w, \quad m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
      v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
      w \leftarrow w - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$

    torch's fused kernel runs it in one pass.

    Attributes:
        lr: learning rate, above zero.
        beta1: decay of the mean of gradients, in [0, 1).
        beta2: decay of the mean of squared gradients, in [0, 1).
        eps: added to the denominator.
        weight_decay: L2 penalty, coupled with the gradient. `AdamW` decouples it.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = Adam(lr=0.1).build([w])
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Source:
        Kingma and Ba, Adam, ICLR 2015, algorithm 1. https://arxiv.org/abs/1412.6980
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        groups = as_groups(parameters)
        return torch.optim.Adam(
            groups,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=is_fusible(groups),
        )
