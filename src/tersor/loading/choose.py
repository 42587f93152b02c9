"""The metric and the loss: given by name or as a function, or the usual ones of the task, and said so."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tersor._check import one_of
from tersor.errors import ArgumentError
from tersor.loading.losses import LOSSES, Loss, default_loss, make_loss
from tersor.loading.metric import Metric
from tersor.loading.metrics import METRICS, named_metric
from tersor.loading.references import load_object
from tersor.loading.setting import Setting

#: First and second parameter names of a metric that wants the model itself.
_MODEL_NAMES = ("model", "net", "network", "module")
_LOADER_NAMES = ("data", "dataset", "batches", "split")


@runtime_checkable
class _Accumulating(Protocol):
    """A torchmetrics object: it remembers every call until it is reset."""

    def reset(self) -> None: ...

    def update(self, outputs: Tensor, target: Tensor, /) -> None: ...

    def compute(self) -> Any: ...


_INFERRED = {
    "classification": "accuracy",
    "multilabel": "accuracy",
    "segmentation": "accuracy",
    "tokens": "accuracy",
    "language": "accuracy",
    "regression": "mse",
}


def choose_metric(given: str | Callable[..., Any] | Metric | None, setting: Setting) -> tuple[Metric, str]:
    """Return the metric, and in words what it is and where it comes from.

    Args:
        given: a name, a function, `module:function`, a `Metric`, or None.
        setting: of the task.

    Raises:
        ArgumentError: if the name is unknown, or the metric does not fit the task.
    """
    if given is None:
        return _inferred(setting)
    if isinstance(given, Metric):
        return given, f"{given.name}, as given"
    if isinstance(given, str) and ":" not in given:
        found = named_metric(one_of("metric", given, METRICS), setting)
        return found, f"{found.name}, as asked, {_direction(found)}"
    function = load_object(given, ArgumentError) if isinstance(given, str) else given
    found = metric_of(function)
    return found, f"{found.name}, your function, {_direction(found)}"


def _inferred(setting: Setting) -> tuple[Metric, str]:
    if setting.kind == "fidelity":
        found = named_metric("agreement" if setting.classes else "cosine", setting)
        return found, (
            f"{found.name} with the original model, because the data has NO LABELS: this says how alike "
            "the answers are, not how right"
        )
    found = named_metric(_INFERRED[setting.kind], setting)
    binary = "binary " if setting.binary else ""
    return found, f"{binary}{found.name}, inferred ({setting.why}), {_direction(found)}"


def _direction(metric: Metric) -> str:
    return "higher is better" if metric.higher_is_better else "lower is better"


def metric_of(function: object) -> Metric:
    """Wrap the user's `f(preds, target)` or `f(model, loader)`, told apart by the names of the parameters.

    A `higher_is_better` attribute, as torchmetrics has it, gives the direction; without it higher is better.

    Raises:
        ArgumentError: if it is neither.

    Example:
        >>> import torch
        >>> def distance(preds, target): return (preds - target).abs().max()
        >>> metric_of(distance).value(torch.zeros(2), torch.ones(2))
        1.0
    """
    if not callable(function):
        raise ArgumentError(
            f"`metric` must be a name, f(preds, target) or f(model, loader), got {type(function).__name__}."
        )
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):  # builtins without a signature
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    name = str(getattr(function, "__name__", type(function).__name__))
    up = getattr(function, "higher_is_better", None) is not False
    if len(names) >= 2 and (names[0] in _MODEL_NAMES or names[1] in _LOADER_NAMES or "loader" in names[1]):
        return Metric(
            name,
            _needs_model,
            higher_is_better=up,
            of_model=lambda model, data: _number(function(model, data)),
        )
    if isinstance(function, _Accumulating):
        return Metric(name, partial(_fresh, function), higher_is_better=up)
    needed = [p for p in parameters if p.default is p.empty and p.name in names]
    if parameters and len(needed) > 2:
        raise ArgumentError(
            f"The metric {name!r} takes ({', '.join(names)}); it must take (preds, target) or (model, loader)."
        )
    return Metric(name, lambda outputs, target: _number(function(outputs, target)), higher_is_better=up)


def _fresh(metric: _Accumulating, outputs: Tensor, target: Tensor) -> float:
    """Return the value of an accumulating metric on this data alone."""
    metric.reset()
    metric.update(outputs, target)
    return _number(metric.compute())


def _needs_model(_outputs: Tensor, _target: Tensor) -> float:
    raise ArgumentError("This metric takes (model, loader); call `metric.of_model(model, loader)`.")


def _number(value: Any) -> float:
    try:
        return float(value.item() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as cause:
        raise ArgumentError(f"The metric must return one number, got {type(value).__name__}.") from cause


def choose_loss(given: str | Loss | None, setting: Setting) -> tuple[Loss | None, str]:
    """Return the training loss, and in words what it is and where it comes from.

    Raises:
        ArgumentError: if the name is unknown.
    """
    if given is None:
        name = default_loss(setting)
        last = {"none": "", "log_softmax": " on log-probabilities"}.get(
            setting.activation, " on probabilities"
        )
        return make_loss(name, setting), f"{name}{last if name != 'mse' else ''}, usual for {setting.kind}"
    if isinstance(given, str):
        return make_loss(one_of("loss", given, LOSSES), setting), f"{given}, as asked"
    if not callable(given):
        raise ArgumentError(f"`loss` must be a name or f(output, target), got {type(given).__name__}.")
    return given, f"{getattr(given, '__name__', type(given).__name__)}, your function"
