"""Distillation of values: the squared error."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tersor.distillation.rows import same_shape, wide


@dataclass(frozen=True, slots=True)
class MSE:
    r"""Squared error of the outputs, in units of the teacher's variance.

    $$\ell = \frac{\frac{1}{n} \sum (y^s - y^t)^2}{\mathrm{var}(y^t) + \epsilon}$$

    Dividing by the variance of the teacher's batch makes one learning rate fit outputs of any unit.

    Attributes:
        normalized: divide by the teacher's variance; False gives the plain mean.

    Raises:
        ArgumentError: if the outputs differ in shape.

    Example:
        >>> import torch
        >>> MSE(normalized=False)(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]]), None).item()
        2.5

    Source:
        Ba and Caruana, Do Deep Nets Really Need to be Deep?, NeurIPS 2014, section 2.2.
    """

    normalized: bool = True

    def __call__(self, student: Tensor, teacher: Tensor, _target: Tensor | None = None) -> Float[Tensor, ""]:
        """Return the loss of one batch."""
        same_shape(student, teacher)
        error = F.mse_loss(wide(student), wide(teacher))
        if not self.normalized or teacher.numel() < 2:
            return error
        # A constant teacher batch has no variance: its own size then sets the unit.
        scale = wide(teacher).var() + 1e-6 * wide(teacher).square().mean() + 1e-12
        return error / scale
