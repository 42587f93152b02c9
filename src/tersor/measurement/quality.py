"""The quality of a file: its outputs on a split, and the metric of them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor

from tersor.errors import MeasurementError
from tersor.exporting.artefact import Session
from tersor.loading.evaluate import Loader
from tersor.loading.inputs import to_numpy
from tersor.loading.metric import Metric
from tersor.loading.task import Batch, Split


@dataclass(frozen=True, slots=True)
class Quality:
    """A metric of a file on a split.

    Attributes:
        value: the metric, in its own unit.
        scores: score of each sample, shape (count,), higher is better; None where the metric does not decompose.
        ids: the samples, in the order of `scores`.
        count: number of samples.
    """

    value: float
    scores: Tensor | None
    ids: tuple[int, ...]
    count: int


def predict(
    session: Session, split: Split, *, batch: int = 64
) -> tuple[Tensor, Tensor | None, tuple[int, ...]]:
    """Run a file over a split.

    Args:
        session: an opened file.
        split: the samples.
        batch: samples per call.

    Returns:
        The main outputs, shape (samples, ...); the targets, or None without labels; the ids of the samples.

    Raises:
        MeasurementError: if the split is empty, or outputs of different batches do not fit together.
    """
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    ids: list[int] = []
    for part in split.batches(batch):
        outputs.append(_run(session, part))
        ids.extend(part.ids)
        if part.target is not None:
            targets.append(part.target)
    _check_count(split, ids)
    return _join(outputs), _join(targets) if targets else None, tuple(ids)


def evaluate(session: Session, split: Split, metric: Metric, *, batch: int = 64) -> Quality:
    """Return the quality of a file on a split.

    A metric with scores is computed batch by batch, so the outputs of the whole split are never held at once.

    Args:
        session: an opened file.
        split: the samples, with targets.
        metric: how quality is measured.
        batch: samples per call.

    Raises:
        MeasurementError: if the split is empty or without targets, the outputs do not fit together, or the metric
            is not a number.
    """
    if metric.of_model is not None:
        value = metric.of_model(_as_model(session), Loader(split, batch))
        quality = Quality(
            value, None, tuple(i for part in split.batches(batch) for i in part.ids), len(split)
        )
    elif metric.scores is None:
        outputs, targets, ids = predict(session, split, batch=batch)
        quality = Quality(float(metric.value(outputs, _needed(targets, split))), None, ids, len(ids))
    else:
        quality = _decomposed(session, split, metric, batch)
    if isnan(quality.value):
        raise MeasurementError(
            f"{metric.name} on the {split.name} split is not a number. Look for NaN in the outputs of the file."
        )
    return quality


def _decomposed(session: Session, split: Split, metric: Metric, batch: int) -> Quality:
    assert metric.scores is not None
    parts: list[Tensor] = []
    ids: list[int] = []
    for part in split.batches(batch):
        parts.append(metric.scores(_run(session, part), _needed(part.target, split)).double())
        ids.extend(part.ids)
    _check_count(split, ids)
    scores = torch.cat(parts)
    value = scores.mean().item()
    return Quality(value if metric.higher_is_better else -value, scores, tuple(ids), len(ids))


def _as_model(session: Session) -> Callable[..., Tensor]:
    """Return the file as something that is called like the model."""

    def model(*arguments: object, **named: object) -> Tensor:
        return torch.from_numpy(session(to_numpy(named or arguments))[0])

    return model


def _run(session: Session, part: Batch) -> Tensor:
    return torch.from_numpy(session(to_numpy(part.inputs))[0])


def _needed(target: Tensor | None, split: Split) -> Tensor:
    if target is None:
        raise MeasurementError(f"The {split.name} split has no targets. Give labels, or measure fidelity.")
    return target


def _check_count(split: Split, ids: list[int]) -> None:
    if not ids:
        raise MeasurementError(
            f"The {split.name} split is empty. Give it samples, or a larger share of the data."
        )


def _join(parts: list[Tensor]) -> Tensor:
    try:
        return torch.cat(parts)
    except RuntimeError as error:
        raise MeasurementError(
            "Outputs of different batches have different shapes, so the metric of the whole split cannot be computed. "
            "Pad the samples to one length, or use a metric with a score for each sample."
        ) from error
