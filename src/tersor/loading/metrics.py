"""Metrics by name: one small factory each, in one table. `Setting` tells them the shape of the task."""

import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from tersor.errors import ArgumentError
from tersor.loading.answers import (
    aligned,
    answers,
    correctness,
    log_probabilities,
    masked_mean,
    probabilities,
    threshold,
)
from tersor.loading.metric import Metric
from tersor.loading.recount import (
    Area,
    Recount,
    area_under_roc,
    average_precision,
    class_counts,
    of_ranks,
    of_sums,
    ratio,
)
from tersor.loading.setting import Setting
from tersor.loading.survey import IGNORED

Factory: TypeAlias = Callable[[Setting], Metric]
Scores: TypeAlias = Callable[[Tensor, Tensor], Tensor]

#: Metric factories by name; `kinds` are the tasks that each one fits.
METRICS: dict[str, tuple[Factory, tuple[str, ...]]] = {}
_CLASSES = ("classification", "segmentation", "tokens", "language")


def metric(*names: str, kinds: tuple[str, ...]) -> Callable[[Factory], Factory]:
    """Register a factory under `names` for tasks of `kinds`."""

    def register(factory: Factory) -> Factory:
        METRICS.update(dict.fromkeys(names, (factory, kinds)))
        return factory

    return register


def named_metric(name: str, setting: Setting) -> Metric:
    """Return the metric of `name` for the task.

    Raises:
        ArgumentError: if the metric does not fit this kind of task.
    """
    factory, kinds = METRICS[name]
    if setting.kind not in kinds:
        fitting = sorted(n for n, (_, k) in METRICS.items() if setting.kind in k)
        raise ArgumentError(
            f"The metric {name!r} is for {' or '.join(kinds)}; this task is {setting.kind} ({setting.why}). "
            f"Metrics that fit: {', '.join(fitting)}."
        )
    return factory(setting)


def from_scores(
    name: str, scores: Scores, bounds: tuple[float, float] = (0.0, 1.0), *, higher_is_better: bool = True
) -> Metric:
    """Return the metric that is the mean of `scores` (its negative where lower is better)."""
    sign = 1.0 if higher_is_better else -1.0
    value = lambda outputs, target: sign * float(scores(outputs, target).mean())
    return Metric(name, value, scores, bounds, higher_is_better)


@metric("accuracy", kinds=(*_CLASSES, "multilabel"))
def _accuracy(setting: Setting) -> Metric:
    """Fraction of right answers; over several positions or labels, the mean fraction of each sample."""
    scores = _label_correctness if setting.kind == "multilabel" else correctness
    return from_scores("accuracy", partial(scores, setting=setting))


def _label_correctness(outputs: Tensor, target: Tensor, setting: Setting) -> Tensor:
    said = outputs > threshold(setting)
    return (said == target.to(said.device).bool()).to(torch.float64).mean(dim=1)


@metric("exact_match", kinds=("multilabel", "tokens"))
def _exact_match(setting: Setting) -> Metric:
    """Fraction of samples whose every label is right."""
    scores = _label_correctness if setting.kind == "multilabel" else correctness
    return from_scores("exact_match", lambda o, t: (scores(o, t, setting) == 1).to(torch.float64))


def _top_k(k: int, setting: Setting) -> Metric:
    if setting.binary or setting.classes <= k:
        raise ArgumentError(
            f"'top{k}' needs more than {k} classes, and the model tells {setting.classes} apart."
        )

    def scores(outputs: Tensor, target: Tensor) -> Tensor:
        shown, wanted = aligned(outputs, target, setting)
        hit = (shown.topk(k, dim=-1).indices == wanted.unsqueeze(-1)).any(dim=-1)
        return masked_mean(hit.to(torch.float64), wanted, empty=1.0)

    return from_scores(f"top{k}", scores)


metric("top3", kinds=_CLASSES)(partial(_top_k, 3))
metric("top5", kinds=_CLASSES)(partial(_top_k, 5))
metric("top10", kinds=_CLASSES)(partial(_top_k, 10))


def _torchmetrics(function: str, outputs: Tensor, target: Tensor, **options: Any) -> float:
    # Imported here because torchmetrics imports transformers where it is installed, which takes seconds.
    return float(
        getattr(importlib.import_module("torchmetrics.functional"), function)(outputs, target, **options)
    )


#: Accuracy of each class; of yes and no as one task it would not be balanced.
_BALANCED = "accuracy"


def _of_classes(function: str, average: str, setting: Setting, outputs: Tensor, target: Tensor) -> float:
    """Call a torchmetrics function on class numbers (or labels) with the task that this setting is."""
    if setting.kind == "multilabel":
        said = (outputs > threshold(setting)).to(torch.int64)
        options = {"task": "multilabel", "num_labels": setting.classes, "average": average}
        return _torchmetrics(function, said, target.to(torch.int64), **options)
    shown, wanted = aligned(outputs, target, setting)
    said = answers(shown, setting)
    kept = wanted != IGNORED
    if setting.binary and function != _BALANCED:
        return _torchmetrics(function, said[kept], wanted[kept], task="binary")
    options = {"task": "multiclass", "num_classes": setting.classes, "average": average}
    return _torchmetrics(function, said[kept], wanted[kept], **options)


def _class_metric(name: str, function: str, average: str, setting: Setting) -> Metric:
    recount = partial(_recounted_classes, function, average, setting)
    return Metric(name, partial(_of_classes, function, average, setting), recount=recount)


def _class_scores(function: str, right: np.ndarray, claimed: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return a score of each class from how often it is right, claimed and true."""
    if function == "f1_score":
        return ratio(2 * right, claimed + true)
    return ratio(right, claimed if function == "precision" else true)


def _recounted_classes(
    function: str, average: str, setting: Setting, outputs: Tensor, target: Tensor
) -> Recount:
    """Return what `_of_classes` says of redrawn samples."""

    def value(sums: np.ndarray) -> np.ndarray:
        right, claimed, true = np.split(sums, 3, axis=1)
        if setting.binary and function != _BALANCED:
            right, claimed, true = right[:, 1:], claimed[:, 1:], true[:, 1:]
        if average == "micro":
            right, claimed, true = (part.sum(1, keepdims=True) for part in (right, claimed, true))
        # Classes that are neither shown nor claimed say nothing; labels are each a task of their own.
        told = (claimed + true > 0) | (setting.kind == "multilabel")
        return ratio((_class_scores(function, right, claimed, true) * told).sum(1), told.sum(1))

    if setting.kind == "multilabel":
        said, wanted = (outputs > threshold(setting)).cpu().numpy(), target.cpu().numpy().astype(bool)
        return of_sums(np.hstack([said & wanted, said, wanted]).astype(np.float64), value)
    shown, wanted = aligned(outputs, target, setting)
    return of_sums(
        class_counts(answers(shown, setting).cpu().numpy(), wanted.cpu().numpy(), setting.classes), value
    )


_LABELS = (*_CLASSES, "multilabel")
metric("f1", "f1_macro", kinds=_LABELS)(partial(_class_metric, "f1", "f1_score", "macro"))
metric("f1_micro", kinds=_LABELS)(partial(_class_metric, "f1_micro", "f1_score", "micro"))
metric("precision", kinds=_LABELS)(partial(_class_metric, "precision", "precision", "macro"))
metric("recall", kinds=_LABELS)(partial(_class_metric, "recall", "recall", "macro"))
metric("balanced_accuracy", kinds=("classification",))(
    partial(_class_metric, "balanced_accuracy", _BALANCED, "macro")
)


def _of_scores(function: str, setting: Setting, outputs: Tensor, target: Tensor) -> float:
    """Call a torchmetrics ranking function on probabilities."""
    if setting.kind == "multilabel":
        options = {"task": "multilabel", "num_labels": setting.classes}
        return _torchmetrics(function, probabilities(outputs, setting), target.to(torch.int64), **options)
    shown, wanted = aligned(outputs, target, setting)
    chances = probabilities(shown, setting)
    if setting.binary:
        return _torchmetrics(function, chances.reshape(-1), wanted.reshape(-1), task="binary")
    flat = chances.reshape(-1, setting.classes)
    return _torchmetrics(function, flat, wanted.reshape(-1), task="multiclass", num_classes=setting.classes)


def _recounted_scores(function: str, setting: Setting, outputs: Tensor, target: Tensor) -> Recount:
    """Return what `_of_scores` says of redrawn samples."""
    area = _AREAS[function]
    if setting.kind == "multilabel":
        return of_ranks(probabilities(outputs, setting).cpu().numpy(), target.cpu().numpy() > 0, area)
    shown, wanted = aligned(outputs, target, setting)
    chances = probabilities(shown, setting).reshape(len(wanted), -1).cpu().numpy()
    if setting.binary:
        return of_ranks(chances, wanted.cpu().numpy() == 1, area)
    # torchmetrics leaves absent classes out of one mean and counts them as zero in the other.
    absent = math.nan if function == "average_precision" else 0.0
    return of_ranks(chances, wanted.cpu().numpy() == np.arange(setting.classes), area, absent)


_AREAS: dict[str, Area] = {"auroc": area_under_roc, "average_precision": average_precision}


def _rank_metric(function: str, setting: Setting) -> Metric:
    recount = partial(_recounted_scores, function, setting)
    return Metric(function, partial(_of_scores, function, setting), recount=recount)


@metric("auroc", kinds=("classification", "multilabel"))
def _auroc(setting: Setting) -> Metric:
    """Area under the receiver operating characteristic curve, macro average over classes."""
    return _rank_metric("auroc", setting)


@metric("average_precision", kinds=("classification", "multilabel"))
def _average_precision(setting: Setting) -> Metric:
    """Area under the precision-recall curve, macro average over classes."""
    return _rank_metric("average_precision", setting)


@metric("iou", "miou", kinds=("segmentation",))
def _iou(setting: Setting) -> Metric:
    """Intersection over union of each image, averaged over the classes that it shows or claims, then over images."""

    def scores(outputs: Tensor, target: Tensor) -> Tensor:
        shown, wanted = aligned(outputs, target, setting)
        said, kept = answers(shown, setting), wanted != IGNORED
        said = torch.where(kept, said, IGNORED)
        both, either = [], []
        for label in range(setting.classes):
            a, b = said == label, wanted == label
            both.append((a & b).sum(dim=1))
            either.append((a | b).sum(dim=1))
        union = torch.stack(either)
        ratio = torch.stack(both) / union.clamp(min=1)
        present = (union > 0).sum(dim=0)
        return torch.where(present > 0, ratio.sum(dim=0) / present.clamp(min=1), 1.0).to(torch.float64)

    return from_scores("iou", scores)


def _losses(outputs: Tensor, target: Tensor, setting: Setting) -> Tensor:
    """Return the mean negative log-likelihood of each sample, in nats, shape (samples,)."""
    shown, wanted = aligned(outputs, target, setting)
    if setting.binary:
        chances = probabilities(shown.to(torch.float64), setting)
        nll = functional.binary_cross_entropy(chances, wanted.to(torch.float64), reduction="none")
    else:
        logs = log_probabilities(shown.to(torch.float64), setting)
        nll = -logs.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return masked_mean(nll, wanted, empty=0.0)


@metric("nll", "log_loss", kinds=_CLASSES)
def _nll(setting: Setting) -> Metric:
    """Negative log-likelihood in nats, mean over samples; a sample above twice that of guessing counts as twice.

    The cap gives each score a bound, so that the metric can be certified; a useful model stays below it.
    """
    cap = 2 * math.log(setting.classes)
    return from_scores(
        "nll", lambda o, t: -_losses(o, t, setting).clamp(max=cap), bounds=(-cap, 0.0), higher_is_better=False
    )


@metric("perplexity", kinds=("language", "tokens"))
def _perplexity(setting: Setting) -> Metric:
    """`exp` of the mean negative log-likelihood over all tokens."""

    def parts(outputs: Tensor, target: Tensor) -> Tensor:
        shown, wanted = aligned(outputs, target, setting)
        logs = log_probabilities(shown.to(torch.float32), setting)
        kept = wanted != IGNORED
        nll = -logs.gather(-1, wanted.clamp(min=0).unsqueeze(-1)).squeeze(-1).to(torch.float64)
        sums = ((nll * kept).reshape(len(nll), -1).sum(1), kept.reshape(len(nll), -1).sum(1))
        return torch.stack([part.to(torch.float64) for part in sums], dim=1)

    return _from_parts("perplexity", parts, lambda sums: np.exp(sums[:, 0] / sums[:, 1]))


def _from_parts(name: str, parts: Scores, of_sum: Callable[[np.ndarray], np.ndarray]) -> Metric:
    """Return a metric of a whole set, where lower is better, from what each sample adds to its sums."""
    recount = lambda outputs, target: of_sums(parts(outputs, target).detach().double().cpu().numpy(), of_sum)
    value = lambda outputs, target: float(recount(outputs, target)(np.ones((1, len(outputs))))[0])
    return Metric(name, value, higher_is_better=False, recount=recount)


def _errors(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the differences as (samples, values)."""
    n = len(outputs)
    return outputs.detach().reshape(n, -1).to(torch.float64) - target.reshape(n, -1).to(
        outputs.device, torch.float64
    )


@metric("mse", kinds=("regression",))
def _mse(setting: Setting) -> Metric:
    """Mean squared error; squared errors above the squared range of the targets count as that.

    The cap gives each score a bound, so that the metric can be certified; answers inside the range never reach it.
    """
    cap = max((setting.high - setting.low) ** 2, 1e-12)
    scores = lambda o, t: -(_errors(o, t) ** 2).clamp(max=cap).mean(dim=1)
    return from_scores("mse", scores, bounds=(-cap, 0.0), higher_is_better=False)


@metric("mae", kinds=("regression",))
def _mae(setting: Setting) -> Metric:
    """Mean absolute error; errors above the range of the targets count as the range (see `mse`)."""
    cap = max(setting.high - setting.low, 1e-6)
    scores = lambda o, t: -_errors(o, t).abs().clamp(max=cap).mean(dim=1)
    return from_scores("mae", scores, bounds=(-cap, 0.0), higher_is_better=False)


@metric("rmse", kinds=("regression",))
def _rmse(_setting: Setting) -> Metric:
    """Root of the mean squared error, without a cap."""
    parts = lambda o, t: torch.stack(
        [_errors(o, t).square().mean(dim=1), torch.ones(len(o), device=o.device)], 1
    )
    return _from_parts("rmse", parts, lambda sums: np.sqrt(sums[:, 0] / sums[:, 1]))


@metric("r2", kinds=("regression",))
def _r2(_setting: Setting) -> Metric:
    """Coefficient of determination, mean over the outputs."""

    def value(outputs: Tensor, target: Tensor) -> float:
        n = len(outputs)
        shown, wanted = outputs.detach().reshape(n, -1), target.reshape(n, -1).to(outputs.device)
        return _torchmetrics("r2_score", shown.to(torch.float64), wanted.to(torch.float64))

    return Metric("r2", value, recount=_recounted_r2)


def _recounted_r2(outputs: Tensor, target: Tensor) -> Recount:
    """Return the coefficient of determination of redrawn samples, from their sums of squares."""
    wanted = target.reshape(len(outputs), -1).to(torch.float64).cpu().numpy()
    # About the mean of all, so that the sums of squares keep their digits.
    centred = wanted - wanted.mean(0)
    errors = _errors(outputs, target).cpu().numpy()
    parts = np.hstack([errors**2, centred, centred**2, np.ones((len(wanted), 1))])

    def value(sums: np.ndarray) -> np.ndarray:
        (left, shift, square), count = np.split(sums[:, :-1], 3, axis=1), sums[:, -1:]
        spread = np.maximum(square - shift**2 / count, 0.0)
        return (1 - ratio(left, spread, otherwise=1.0)).mean(1)

    return of_sums(parts, value)


@metric("agreement", kinds=("fidelity",))
def _agreement(setting: Setting) -> Metric:
    """Fraction of samples whose largest output is the original's; targets are the original's outputs."""
    if setting.classes < 2:
        raise ArgumentError("'agreement' needs outputs along classes; use 'cosine' for vectors.")
    scores = lambda o, t: (o.argmax(dim=1) == t.to(o.device).argmax(dim=1)).to(torch.float64)
    return from_scores("agreement", scores)


@metric("cosine", kinds=("fidelity", "regression"))
def _cosine(_setting: Setting) -> Metric:
    """Mean cosine similarity of output and target, all values of a sample as one vector."""

    def scores(outputs: Tensor, target: Tensor) -> Tensor:
        n = len(outputs)
        a, b = (
            outputs.detach().reshape(n, -1).to(torch.float64),
            target.reshape(n, -1).to(outputs.device, torch.float64),
        )
        return functional.cosine_similarity(a, b, dim=1).clamp(-1.0, 1.0)

    return from_scores("cosine", scores, bounds=(-1.0, 1.0))
