"""Outputs to answers: what a model says, in the form that targets have."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tersor.loading.setting import Setting
from tersor.loading.survey import IGNORED


def aligned(outputs: Tensor, target: Tensor, setting: Setting) -> tuple[Tensor, Tensor]:
    """Return outputs with the class axis last, flattened over positions, and the targets that they answer.

    Args:
        outputs: shape (samples, ...).
        target: shape (samples, ...).
        setting: of the task.

    Returns:
        Outputs (samples, positions, classes) and class numbers (samples, positions); (samples, positions) both where
        one output tells two classes apart.
    """
    outputs, target = outputs.detach() if not outputs.requires_grad else outputs, target.to(outputs.device)
    n = len(outputs)
    if setting.one_hot and target.is_floating_point() | (target.ndim == 2):
        target = target.argmax(dim=1)
    target = target.to(torch.int64)
    if setting.binary:
        return outputs.reshape(n, -1), target.reshape(n, -1)
    outputs = outputs.movedim(setting.class_axis, -1)
    if setting.shifted:
        outputs, target = outputs[:, :-1], target[:, 1:]
    return outputs.reshape(n, -1, setting.classes), target.reshape(n, -1)


def answers(outputs: Tensor, setting: Setting) -> Tensor:
    """Return class numbers: the largest output, or whether the one output is above its threshold.

    The threshold is 0 for logits and 1/2 for probabilities.
    """
    if setting.binary:
        return (outputs > threshold(setting)).to(torch.int64)
    return outputs.argmax(dim=-1)


def threshold(setting: Setting) -> float:
    """Return the output above which one binary output says yes.

    Example:
        >>> threshold(Setting("classification", (1,), 2, activation="sigmoid"))
        0.5
    """
    return 0.5 if setting.activation == "sigmoid" else 0.0


def correctness(outputs: Tensor, target: Tensor, setting: Setting) -> Float[Tensor, " samples"]:
    """Return for each sample the fraction of its positions that are answered right; 1 if it has none to answer."""
    shown, wanted = aligned(outputs, target, setting)
    right = answers(shown, setting) == wanted
    return masked_mean(right.to(torch.float64), wanted, empty=1.0)


def masked_mean(
    values: Float[Tensor, "n p"], wanted: Int[Tensor, "n p"], *, empty: float
) -> Float[Tensor, " n"]:
    """Return the mean of each row over the positions whose target is not ignored."""
    kept = wanted != IGNORED
    count = kept.sum(dim=1)
    mean = torch.where(kept, values, 0.0).sum(dim=1) / count.clamp(min=1)
    return torch.where(count > 0, mean, empty)


def log_probabilities(outputs: Tensor, setting: Setting) -> Tensor:
    """Return log-probabilities along the last axis, whatever the model's last activation is."""
    if setting.activation == "softmax":
        return outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log()
    return outputs.log_softmax(dim=-1)


def probabilities(outputs: Tensor, setting: Setting) -> Tensor:
    """Return probabilities: of yes for one output, along the last axis otherwise."""
    if setting.binary or setting.kind == "multilabel":
        return outputs if setting.activation == "sigmoid" else outputs.sigmoid()
    return log_probabilities(outputs, setting).exp()
