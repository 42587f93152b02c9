"""The least-squares core of every refit."""

import torch
from jaxtyping import Float
from torch import Tensor


def least_squares(
    gram: Float[Tensor, "size size"],
    cross: Float[Tensor, "size out"],
    near: Float[Tensor, "size out"],
    damping: float,
) -> Float[Tensor, "size out"]:
    r"""Return the minimiser of $|x w - y|^2 + \lambda |w - w_0|^2$ from the moments of x and y.

    $$w = w_0 + (G + \lambda I)^{-1} (C - G w_0), \qquad
      \lambda = \mathrm{damping} \cdot \overline{\operatorname{diag} G}$$

    Args:
        gram: $G = x^T x$, or its mean over rows.
        cross: $C = x^T y$, over the same rows and in the same unit.
        near: $w_0$, kept where x says nothing.
        damping: lambda in units of the mean diagonal of the Gram matrix.

    Example:
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> least_squares(x.T @ x, x.T @ torch.ones(2, 1).double(), torch.zeros(2, 1).double(), damping=1.0)
        tensor([[0.5000],
                [0.5000]], dtype=torch.float64)
    """
    # A little more than zero, so that columns that are always zero keep their weights.
    strength = damping * gram.diagonal().mean() + 1e-12
    damped = gram + strength * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return near + torch.cholesky_solve(cross - gram @ near, torch.linalg.cholesky(damped))
