"""Outputs as rows of classes: what every loss on logits starts from."""

import torch
from jaxtyping import Float
from torch import Tensor

from tersor.errors import ArgumentError

#: Targets with this value take no part in a loss (padding), as in torch's cross entropy.
IGNORED = -100


def class_rows(
    student: Tensor, teacher: Tensor, target: Tensor | None, axis: int
) -> tuple[Float[Tensor, "rows classes"], Float[Tensor, "rows classes"], Tensor | None]:
    """Return both outputs as float32 (or wider) rows over the class axis, without ignored positions.

    Args:
        student: outputs, any shape with a class axis.
        teacher: outputs of the same shape.
        target: class of each position, or None; positions equal to -100 are dropped.
        axis: which axis holds the classes.

    Raises:
        ArgumentError: if the outputs differ in shape or have no class axis.

    Example:
        >>> logits = torch.zeros(2, 3)
        >>> [None if t is None else tuple(t.shape) for t in class_rows(logits, logits, torch.tensor([1, -100]), -1)]
        [(1, 3), (1, 3), (1,)]
    """
    same_shape(student, teacher)
    if student.dim() < 2:
        raise ArgumentError(
            f"Outputs over classes have a batch and a class axis, got the shape {tuple(student.shape)}."
            " For one value per sample use MSE or BinaryKL."
        )
    classes = student.shape[axis]
    rows = wide(student).movedim(axis, -1).reshape(-1, classes)
    wanted = wide(teacher).movedim(axis, -1).reshape(-1, classes)
    if target is None or target.is_floating_point() or target.numel() != rows.shape[0]:
        return rows, wanted, None
    labels = target.reshape(-1)
    used = labels != IGNORED
    return (rows, wanted, labels) if bool(used.all()) else (rows[used], wanted[used], labels[used])


def same_shape(student: Tensor, teacher: Tensor) -> None:
    """Raise unless both outputs have one shape."""
    if student.shape != teacher.shape:
        raise ArgumentError(
            f"The student gives {tuple(student.shape)} and the teacher {tuple(teacher.shape)}. "
            "A loss on outputs needs one shape: compare a common output, or pass your own loss."
        )


def wide(tensor: Tensor) -> Tensor:
    """Return `tensor` in float32, or in its own dtype where that is wider: exponentials overflow in 16 bits."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
