"""Adam with decoupled weight decay."""

from dataclasses import dataclass

import torch

from tersor.optimizers.groups import as_groups, is_fusible
from tersor.optimizers.registry import Parameters, check_ranges, recipe


@recipe("adamw")
@dataclass(frozen=True, slots=True)
class AdamW:
    r"""Adam whose weight decay does not pass through the adaptive denominator.

    $$w \leftarrow (1 - \eta\lambda) w, \quad m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad
      v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
      w \leftarrow w - \eta \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$

    torch's fused kernel runs it in one pass.

    Attributes:
        lr: learning rate, above zero.
        beta1: decay of the mean of gradients, in [0, 1).
        beta2: decay of the mean of squared gradients, in [0, 1).
        eps: added to the denominator.
        weight_decay: fraction of the weight removed each step is `lr * weight_decay`.

    Raises:
        ArgumentError: if a value is outside its range.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW(lr=0.1, weight_decay=0.0).build([w])
        >>> w.grad = torch.tensor([5.0])
        >>> optimizer.step()
        >>> round(w.item(), 4)
        0.9

    Source:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2.
        https://arxiv.org/abs/1711.05101
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        check_ranges(self)

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        groups = as_groups(parameters)
        return torch.optim.AdamW(
            groups,
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=is_fusible(groups),
        )
