"""Every metric and loss against a naive reference, and the laws that every decomposable metric keeps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tersor.errors import ArgumentError
from tersor.loading.choose import choose_loss, choose_metric, metric_of
from tersor.loading.losses import make_loss
from tersor.loading.metric import Metric
from tersor.loading.metrics import METRICS, named_metric
from tersor.loading.setting import Setting

CLASSES = Setting("classification", (12,), 12)
BINARY = Setting("classification", (1,), 2, class_axis=0)
SIGMOID = Setting("classification", (1,), 2, class_axis=0, activation="sigmoid")
SOFTMAX = Setting("classification", (12,), 12, activation="softmax")
LOGSOFTMAX = Setting("classification", (12,), 12, activation="log_softmax")
ONE_HOT = Setting("classification", (12,), 12, one_hot=True)
LABELS = Setting("multilabel", (5,), 5)
PIXELS = Setting("segmentation", (4, 6, 6), 4)
MASKS = Setting("segmentation", (1, 6, 6), 2, class_axis=0)
TOKENS = Setting("tokens", (7, 9), 9, class_axis=-1)
NEXT = Setting("language", (7, 9), 9, class_axis=-1, shifted=True)
VALUES = Setting("regression", (3,), low=-3.0, high=3.0)
AGREE = Setting("fidelity", (12,), 12)
VECTORS = Setting("fidelity", (8,))


def sample(setting: Setting, n=40, seed=0):
    """Random outputs and targets in the form of a setting; a tenth of the tokens is ignored."""
    g = torch.Generator().manual_seed(seed)
    outputs = torch.randn(n, *setting.outputs, generator=g)
    if setting.activation == "sigmoid":
        outputs = outputs.sigmoid()
    if setting.activation == "softmax":
        outputs = outputs.softmax(1)
    if setting.activation == "log_softmax":
        outputs = outputs.log_softmax(1)
    if setting.kind in ("regression", "fidelity"):
        return outputs, torch.randn(n, *setting.outputs, generator=g)
    if setting.kind == "multilabel":
        return outputs, torch.randint(2, (n, *setting.outputs), generator=g)
    shape = {"classification": (), "segmentation": setting.outputs[1:]}.get(setting.kind, setting.outputs[:1])
    target = torch.randint(setting.classes, (n, *shape), generator=g)
    if setting.kind in ("tokens", "language"):
        target[torch.rand(target.shape, generator=g) < 0.1] = -100
    if setting.one_hot:
        target = functional.one_hot(target, setting.classes).float()
    return outputs, target


SETTINGS = {
    "classes": CLASSES, "binary": BINARY, "sigmoid": SIGMOID, "softmax": SOFTMAX, "log_softmax": LOGSOFTMAX,
    "one-hot": ONE_HOT, "multilabel": LABELS, "pixels": PIXELS, "masks": MASKS, "tokens": TOKENS, "next token": NEXT,
    "regression": VALUES, "agreement": AGREE, "vectors": VECTORS,
}  # fmt: skip


def fitting():
    for title, setting in SETTINGS.items():
        for name, (_, kinds) in METRICS.items():
            if setting.kind not in kinds or (name == "agreement" and not setting.classes):
                continue
            if name.startswith("top") and setting.classes <= int(name[3:]):
                continue
            yield pytest.param(name, setting, id=f"{name}-{title}")


@pytest.mark.parametrize(("name", "setting"), fitting())
def test_every_metric_is_finite_and_its_scores_stay_in_bounds_and_average_to_it(name, setting):
    metric = named_metric(name, setting)
    outputs, target = sample(setting)
    value = metric.value(outputs, target)
    assert math.isfinite(value)
    if metric.scores is None:
        return
    scores = metric.scores(outputs, target)
    low, high = metric.bounds
    assert scores.shape == (40,)
    assert low <= float(scores.min())
    assert float(scores.max()) <= high
    assert (1 if metric.higher_is_better else -1) * float(scores.mean()) == pytest.approx(value)
    parts = torch.cat([metric.scores(outputs[i : i + 7], target[i : i + 7]) for i in range(0, 40, 7)])
    assert torch.allclose(parts, scores)


def recounted():
    for case in fitting():
        if named_metric(*case.values).recount is not None:
            yield case


@pytest.mark.parametrize(("name", "setting"), recounted())
@given(st.integers(0, 10_000), st.integers(2, 60))
@settings(max_examples=12, deadline=None)
def test_redrawn_sets_told_by_counts_have_the_metric_of_their_outputs(name, setting, seed, n):
    if setting.binary or setting.kind == "multilabel":
        setting = replace(setting, activation="sigmoid")
    metric = named_metric(name, setting)
    outputs, target = sample(setting, n, seed)
    if setting.activation == "sigmoid":
        outputs = outputs.mul(16).round().div(16)  # ties, which thresholds do not tell apart
    rng = np.random.default_rng(seed)
    counts = np.stack([np.ones(n), *(np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(3))])
    index = [torch.from_numpy(np.repeat(np.arange(n), row.astype(int))) for row in counts]
    distinct = [len(target[i].unique(dim=0)) > 1 for i in index]
    told = metric.recount(outputs, target)(counts)
    for drawn, value, ordinary in zip(index, told, distinct, strict=True):
        if ordinary:
            assert value == pytest.approx(metric.value(outputs[drawn], target[drawn]), rel=1e-5, abs=1e-5)


def test_metrics_of_a_whole_set_are_told_by_counts():
    names = {case.values[0] for case in recounted()}
    whole = {case.values[0] for case in fitting() if named_metric(*case.values).scores is None}
    assert names == whole


def test_balanced_accuracy_of_one_output_is_that_of_both_classes():
    outputs, target = torch.tensor([[1.0], [1.0], [1.0], [1.0]]), torch.tensor([1, 1, 1, 0])
    assert named_metric("balanced_accuracy", BINARY).value(outputs, target) == 0.5


@pytest.mark.parametrize(("name", "setting"), fitting())
def test_a_perfect_answer_is_not_worse_than_a_random_one(name, setting):
    metric = named_metric(name, setting)
    outputs, target = sample(setting)
    best = perfect(setting, outputs, target)
    sign = 1 if metric.higher_is_better else -1
    assert sign * metric.value(best, target) > sign * metric.value(outputs, target)


def perfect(setting, outputs, target):
    if setting.kind in ("regression", "fidelity"):
        return target.clone()
    if setting.kind == "multilabel" or setting.binary:
        logits = (target.reshape(outputs.shape).float() * 2 - 1) * 10
        return logits.sigmoid() if setting.activation == "sigmoid" else logits
    if setting.one_hot:
        target = target.argmax(1)
    if setting.shifted:
        target = torch.cat([target[:, 1:], target[:, :1]], dim=1)
    hot = functional.one_hot(target.clamp(min=0), setting.classes).float() * 20
    hot = hot.movedim(-1, setting.class_axis)
    return {"softmax": hot.softmax(1), "log_softmax": hot.log_softmax(1)}.get(setting.activation, hot)


def test_accuracy_and_top_five_are_counts():
    outputs, target = sample(CLASSES)
    order = outputs.numpy().argsort(axis=1)[:, ::-1]
    wanted = target.numpy()
    assert named_metric("accuracy", CLASSES).value(outputs, target) == pytest.approx(
        (order[:, 0] == wanted).mean()
    )
    hits = (order[:, :5] == wanted[:, None]).any(1)
    assert named_metric("top5", CLASSES).value(outputs, target) == pytest.approx(hits.mean())


def test_binary_accuracy_takes_the_threshold_of_the_last_activation():
    target = torch.tensor([0, 1, 1, 0])
    logits = torch.tensor([-1.0, 0.4, -0.2, 0.3])
    assert named_metric("accuracy", BINARY).value(logits[:, None], target) == 0.5
    assert named_metric("accuracy", BINARY).value(logits, target[:, None].float()) == 0.5
    assert named_metric("accuracy", SIGMOID).value(logits.sigmoid(), target) == 0.5
    # 0.3 is a probability below a half here, and a logit above zero there.
    assert named_metric("accuracy", SIGMOID).value(torch.tensor([0.3]), torch.tensor([0])) == 1.0
    assert named_metric("accuracy", BINARY).value(torch.tensor([0.3]), torch.tensor([0])) == 0.0


def test_f1_auroc_and_average_precision_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    outputs, target = sample(CLASSES, n=300)
    said, chances = outputs.argmax(1), outputs.softmax(1)
    value = lambda name: named_metric(name, CLASSES).value(outputs, target)
    assert value("f1") == pytest.approx(metrics.f1_score(target, said, average="macro"), abs=1e-6)
    assert value("f1_micro") == pytest.approx(metrics.f1_score(target, said, average="micro"), abs=1e-6)
    assert value("balanced_accuracy") == pytest.approx(
        metrics.balanced_accuracy_score(target, said), abs=1e-6
    )
    assert value("auroc") == pytest.approx(
        metrics.roc_auc_score(target, chances, multi_class="ovr"), abs=1e-5
    )
    flat = 0.3 * outputs  # below the cap of the score
    nll = named_metric("nll", CLASSES).value(flat, target)
    assert nll == pytest.approx(metrics.log_loss(target, flat.double().softmax(1)), abs=1e-5)
    outputs, target = sample(SIGMOID, n=300)
    value = lambda name: named_metric(name, SIGMOID).value(outputs, target)
    assert value("f1") == pytest.approx(metrics.f1_score(target, outputs[:, 0] > 0.5), abs=1e-6)
    assert value("auroc") == pytest.approx(metrics.roc_auc_score(target, outputs[:, 0]), abs=1e-5)
    assert value("average_precision") == pytest.approx(
        metrics.average_precision_score(target, outputs[:, 0]), abs=1e-5
    )
    outputs, target = sample(LABELS, n=300)
    assert named_metric("f1", LABELS).value(outputs, target) == pytest.approx(
        metrics.f1_score(target, outputs > 0, average="macro"), abs=1e-6
    )


def test_iou_is_the_mean_over_images_of_the_mean_over_present_classes():
    outputs, target = sample(PIXELS)
    said, expected = outputs.argmax(1).numpy(), []
    for a, b in zip(said, target.numpy(), strict=True):
        ratios = [
            ((a == c) & (b == c)).sum() / ((a == c) | (b == c)).sum()
            for c in range(4)
            if ((a == c) | (b == c)).any()
        ]
        expected.append(np.mean(ratios))
    assert named_metric("iou", PIXELS).value(outputs, target) == pytest.approx(np.mean(expected))


def test_token_accuracy_skips_ignored_positions_and_shifts_language():
    outputs, target = sample(NEXT)
    said, expected = outputs.argmax(-1), []
    for a, b in zip(said, target, strict=True):
        pairs = [(int(x), int(y)) for x, y in zip(a[:-1], b[1:], strict=True) if y != -100]
        expected.append(np.mean([x == y for x, y in pairs]))
    assert named_metric("accuracy", NEXT).value(outputs, target) == pytest.approx(np.mean(expected))
    nll = functional.cross_entropy(outputs[:, :-1].reshape(-1, 9), target[:, 1:].reshape(-1))
    assert named_metric("perplexity", NEXT).value(outputs, target) == pytest.approx(math.exp(nll), rel=1e-5)


def test_errors_inside_the_range_of_the_targets_are_plain_and_those_outside_are_capped():
    outputs, target = sample(VALUES)
    outputs = outputs.clamp(-1, 1) + target.clamp(-1, 1)
    target = target.clamp(-3, 3)
    plain = (outputs - target).double()
    assert named_metric("mse", VALUES).value(outputs, target) == pytest.approx(
        float(plain.square().mean()), rel=1e-6
    )
    assert named_metric("mae", VALUES).value(outputs, target) == pytest.approx(
        float(plain.abs().mean()), rel=1e-6
    )
    assert named_metric("rmse", VALUES).value(outputs, target) == pytest.approx(
        float(plain.square().mean().sqrt())
    )
    assert named_metric("mse", VALUES).value(outputs + 1e6, target) == pytest.approx(36.0)
    assert not named_metric("mse", VALUES).higher_is_better


def test_r2_and_cosine_agree_with_their_formulas():
    outputs, target = sample(VALUES)
    residual, total = (target - outputs).square().sum(0), (target - target.mean(0)).square().sum(0)
    assert named_metric("r2", VALUES).value(outputs, target) == pytest.approx(
        float((1 - residual / total).mean()), abs=1e-5
    )
    cosine = (outputs * target).sum(1) / outputs.norm(dim=1) / target.norm(dim=1)
    assert named_metric("cosine", VALUES).value(outputs, target) == pytest.approx(
        float(cosine.mean()), abs=1e-6
    )


@given(st.integers(2, 30), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_nll_of_a_uniform_answer_is_the_log_of_the_classes(classes, seed):
    setting = Setting("classification", (classes,), classes)
    target = torch.randint(classes, (9,), generator=torch.Generator().manual_seed(seed))
    assert named_metric("nll", setting).value(torch.zeros(9, classes), target) == pytest.approx(
        math.log(classes)
    )


@pytest.mark.parametrize("setting", [CLASSES, SOFTMAX, LOGSOFTMAX, ONE_HOT])
def test_cross_entropy_is_the_same_number_whatever_the_last_activation(setting):
    logits, target = sample(CLASSES)
    outputs = {"softmax": logits.softmax(1), "log_softmax": logits.log_softmax(1)}.get(
        setting.activation, logits
    )
    wanted = functional.one_hot(target, 12).float() if setting.one_hot else target
    expected = functional.cross_entropy(logits, target)
    assert make_loss("cross_entropy", setting)(outputs, wanted) == pytest.approx(float(expected), rel=1e-5)


def test_binary_cross_entropy_takes_logits_and_probabilities():
    logits, target = sample(BINARY)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 0], target.float())
    assert make_loss("bce", BINARY)(logits, target) == pytest.approx(float(expected), rel=1e-5)
    assert make_loss("bce", SIGMOID)(logits.sigmoid(), target) == pytest.approx(float(expected), rel=1e-5)
    assert make_loss("bce", SIGMOID)(logits.sigmoid()[:, 0], target[:, None].float()) == pytest.approx(
        float(expected), rel=1e-5
    )


def test_segmentation_and_language_losses_agree_with_torch():
    outputs, target = sample(PIXELS)
    assert make_loss("cross_entropy", PIXELS)(outputs, target) == pytest.approx(
        float(functional.cross_entropy(outputs, target)), rel=1e-5
    )
    outputs, target = sample(NEXT)
    expected = functional.cross_entropy(outputs[:, :-1].reshape(-1, 9), target[:, 1:].reshape(-1))
    assert make_loss("cross_entropy", NEXT)(outputs, target) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_the_usual_loss_of_every_task_has_a_gradient(setting):
    loss, words = choose_loss(None, setting)
    outputs, target = sample(setting)
    outputs.requires_grad_()
    loss(outputs, target).backward()
    assert outputs.grad is not None
    assert float(outputs.grad.abs().sum()) > 0
    assert setting.kind in words


def test_a_mean_squared_error_does_not_broadcast():
    setting = Setting("regression", (1,))
    outputs, target = torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 2.0])
    assert make_loss("mse", setting)(outputs, target) == 0
    assert named_metric("mse", setting).value(outputs, target) == 0


def test_metrics_that_do_not_fit_the_task_name_those_that_do():
    with pytest.raises(ArgumentError, match=r"'mse' is for regression.*accuracy"):
        named_metric("mse", CLASSES)
    with pytest.raises(ArgumentError, match="more than 5 classes"):
        named_metric("top5", Setting("classification", (3,), 3))
    with pytest.raises(ArgumentError, match="Did you mean 'accuracy'"):
        choose_metric("acuracy", CLASSES)
    with pytest.raises(ArgumentError, match="Did you mean 'cross_entropy'"):
        choose_loss("cross_entrop", CLASSES)


def test_functions_are_told_apart_by_the_names_of_their_parameters():
    def of_outputs(preds, target):
        return (preds.argmax(1) == target).float().mean()

    def of_model(model, loader):
        return sum(len(batch) for batch in loader) + model

    outputs, target = sample(CLASSES)
    plain, whole = metric_of(of_outputs), metric_of(of_model)
    assert plain.value(outputs, target) == pytest.approx(
        named_metric("accuracy", CLASSES).value(outputs, target)
    )
    assert plain.of_model is None
    assert whole.of_model(1, ["ab", "c"]) == 4.0
    with pytest.raises(ArgumentError, match=r"\(model, loader\)"):
        whole.value(outputs, target)


def test_a_torchmetrics_object_brings_its_direction():
    torchmetrics = pytest.importorskip("torchmetrics")
    metric = metric_of(torchmetrics.MeanSquaredError())
    assert not metric.higher_is_better
    assert metric.value(torch.zeros(3), torch.full((3,), 2.0)) == 4.0
    assert metric.value(torch.zeros(3), torch.full((3,), 1.0)) == 1.0


@pytest.mark.parametrize("wrong", [3, lambda a, b, c: 0])
def test_what_is_no_metric_is_refused(wrong):
    with pytest.raises(ArgumentError, match=r"f\(preds, target\)|\(preds, target\)"):
        metric_of(wrong)


def test_a_metric_that_returns_no_number_is_refused():
    with pytest.raises(ArgumentError, match="one number"):
        metric_of(lambda preds, target: torch.zeros(2)).value(torch.zeros(2), torch.zeros(2))


def test_given_metrics_and_losses_pass_through():
    own = Metric("mine", lambda o, t: 1.0)
    assert choose_metric(own, CLASSES)[0] is own
    assert choose_metric("math:dist", VALUES)[0].name == "dist"
    loss = nn.CrossEntropyLoss()
    assert choose_loss(loss, CLASSES) == (loss, "CrossEntropyLoss, your function")
    with pytest.raises(ArgumentError):
        choose_loss(3, CLASSES)
