"""Training losses by name and by kind of task, exact for models that end in a sigmoid or softmax as well."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from torch import Tensor
from torch.nn import functional

from tersor.loading.answers import aligned, log_probabilities, probabilities
from tersor.loading.inputs import main_output
from tersor.loading.setting import Setting
from tersor.loading.survey import IGNORED

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, target: Tensor, setting: Setting) -> Tensor:
    """Return the mean negative log-likelihood of the right classes, in nats; ignored targets do not count."""
    shown, wanted = aligned(main_output(outputs), target, setting)
    logs = log_probabilities(shown, setting).reshape(-1, setting.classes)
    return functional.nll_loss(logs, wanted.reshape(-1), ignore_index=IGNORED)


def binary_cross_entropy(outputs: Tensor, target: Tensor, setting: Setting) -> Tensor:
    """Return the mean binary cross entropy of logits, or of probabilities for a model that ends in a sigmoid."""
    outputs = main_output(outputs)
    wanted = target.reshape(outputs.shape).to(outputs.device, outputs.dtype)
    if setting.activation == "sigmoid":
        return functional.binary_cross_entropy(probabilities(outputs, setting), wanted)
    return functional.binary_cross_entropy_with_logits(outputs, wanted)


def _values(function: Callable[..., Tensor], outputs: Tensor, target: Tensor, _setting: Setting) -> Tensor:
    outputs = main_output(outputs)
    return function(outputs, target.reshape(outputs.shape).to(outputs.device, outputs.dtype))


#: Loss functions of (outputs, target, setting) by name.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "bce": binary_cross_entropy,
    "mse": partial(_values, functional.mse_loss),
    "mae": partial(_values, functional.l1_loss),
    "huber": partial(_values, functional.huber_loss),
}


def default_loss(setting: Setting) -> str:
    """Return the name of the usual loss of a kind of task.

    Example:
        >>> default_loss(Setting("regression", (1,)))
        'mse'
    """
    if setting.kind in ("regression", "fidelity"):
        return "mse"
    return "bce" if setting.binary or setting.kind == "multilabel" else "cross_entropy"


def make_loss(name: str, setting: Setting) -> Loss:
    """Return the loss of `name` as a function of (outputs, target)."""
    function = LOSSES[name]
    return lambda outputs, target: function(outputs, target, setting)
