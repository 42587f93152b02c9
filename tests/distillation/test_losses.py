"""Each loss against a naive float64 reference, and the checks that every loss must pass."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tersor.distillation.combined import WithLabels
from tersor.distillation.dist import DIST
from tersor.distillation.dkd import DKD
from tersor.distillation.features import AttentionMap, Hint, Relation
from tersor.distillation.kl import KL, BinaryKL
from tersor.distillation.language import JS, ReverseKL, SkewKL
from tersor.distillation.mse import MSE
from tersor.distillation.rules import RULES, default_loss, loss_for
from tersor.distillation.zscore import ZScoreKL
from tersor.errors import ArgumentError, DataError


def softmax(row: np.ndarray) -> np.ndarray:
    powers = np.exp(row - row.max())
    return powers / powers.sum()


def naive_kl(student, teacher, temperature):
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        q, p = softmax(s / temperature), softmax(t / temperature)
        total += sum(pc * (math.log(pc) - math.log(qc)) for pc, qc in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


def naive_zscore(student, teacher, temperature):
    z = lambda rows: np.stack([(r - r.mean()) / (r.std(ddof=1) + 1e-7) for r in rows])
    return naive_kl(z(student), z(teacher), temperature)


def naive_binary(student, teacher, temperature):
    two = lambda z: np.stack([z.ravel(), np.zeros(z.size)], axis=1)
    return naive_kl(two(student), two(teacher), temperature) * student.size / len(student)


def naive_mse(student, teacher):
    variance = teacher.var(ddof=1) + 1e-6 * (teacher**2).mean() + 1e-12
    return ((student - teacher) ** 2).mean() / variance


def naive_dkd(student, teacher, alpha, beta, temperature):
    total = 0.0
    for i, (s, t) in enumerate(zip(student, teacher, strict=True)):
        y = i % student.shape[1]
        q, p = softmax(s / temperature), softmax(t / temperature)
        total += alpha * (p[y] * math.log(p[y] / q[y]) + (1 - p[y]) * math.log((1 - p[y]) / (1 - q[y])))
        rest = [c for c in range(len(s)) if c != y]
        total += beta * sum(
            p[c] / (1 - p[y]) * math.log((p[c] / (1 - p[y])) / (q[c] / (1 - q[y]))) for c in rest
        )
    return temperature**2 * total / len(student)


def naive_dist(student, teacher, beta, gamma, temperature):
    q, p = (np.stack([softmax(row / temperature) for row in rows]) for rows in (student, teacher))
    between = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    within = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    return temperature**2 * (beta * between + gamma * within)


def naive_mixture(student, teacher, weights):
    """Sum over rows of weight * KL(first || second), each a weight of (teacher, student)."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        q, p = softmax(s), softmax(t)
        for weight, (a, b), (c, d) in weights:
            first, second = a * p + b * q, c * p + d * q
            total += weight * float((first * np.log(first / second)).sum())
    return total / len(student)


def naive_hint(student, teacher):
    variance = teacher.var(axis=0)
    return (((student - teacher) ** 2).mean(axis=0) / (variance + 1e-3 * variance.mean() + 1e-12)).mean()


REFERENCES = [
    (KL(1.0), lambda s, t: naive_kl(s, t, 1.0)),
    (KL(4.0), lambda s, t: naive_kl(s, t, 4.0)),
    (BinaryKL(2.0), lambda s, t: naive_binary(s, t, 2.0)),
    (ZScoreKL(2.0), lambda s, t: naive_zscore(s, t, 2.0)),
    (DKD(1.0, 8.0, 4.0), lambda s, t: naive_dkd(s, t, 1.0, 8.0, 4.0)),
    (DIST(2.0, 0.5, 1.5), lambda s, t: naive_dist(s, t, 2.0, 0.5, 1.5)),
    (ReverseKL(), lambda s, t: naive_kl(t, s, 1.0)),
    (SkewKL(0.1), lambda s, t: naive_mixture(s, t, [(1, (1, 0), (0.1, 0.9))])),
    (JS(0.3), lambda s, t: naive_mixture(s, t, [(0.3, (1, 0), (0.3, 0.7)), (0.7, (0, 1), (0.3, 0.7))])),
    (Hint(), naive_hint),
    (MSE(), naive_mse),
    (MSE(normalized=False), lambda s, t: ((s - t) ** 2).mean()),
]
LOSSES = [loss for loss, _ in REFERENCES]
TARGET = torch.tensor([0, 1, 2, 3, 4, 0])


def outputs(rows=6, classes=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(rows, classes, generator=generator, dtype=dtype) for _ in range(2)]


@pytest.mark.parametrize(("loss", "reference"), REFERENCES, ids=lambda x: repr(x) if x in LOSSES else "")
def test_the_value_is_that_of_the_formula(loss, reference):
    student, teacher = outputs()
    expected = reference(student.numpy(), teacher.numpy())
    assert loss(student, teacher, TARGET).item() == pytest.approx(expected, rel=1e-7)


def a_student_that_equals_the_teacher_has_no_loss(loss):
    _, teacher = outputs()
    assert abs(loss(teacher, teacher, torch.zeros(6, dtype=torch.long)).item()) < 1e-9


def the_loss_is_never_negative(loss):
    for seed in range(20):
        student, teacher = outputs(seed=seed)
        assert loss(student, teacher, TARGET).item() >= 0


def the_gradient_reaches_the_student_and_is_right(loss):
    student, teacher = outputs(rows=3, classes=4)
    target = torch.tensor([0, 1, 2])
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher, target), student.requires_grad_())


def half_precision_outputs_do_not_overflow(loss):
    student, teacher = outputs(dtype=torch.float32)
    assert torch.isfinite(
        loss((100 * student).half(), (100 * teacher).half(), torch.zeros(6, dtype=torch.long))
    )


def repeating_the_batch_changes_nothing(loss):
    if loss == MSE():
        return  # the unbiased variance of a batch depends on its size
    student, teacher = outputs()
    twice = loss(student.repeat(2, 1), teacher.repeat(2, 1), TARGET.repeat(2))
    assert twice.item() == pytest.approx(loss(student, teacher, TARGET).item(), rel=1e-9)


def outputs_of_different_shape_are_refused(loss):
    with pytest.raises(ArgumentError, match=r"The student gives \(6, 5\) and the teacher \(6, 4\)"):
        loss(torch.zeros(6, 5), torch.zeros(6, 4), TARGET)


def inputs_are_not_changed(loss):
    student, teacher = outputs()
    before = student.clone(), teacher.clone()
    loss(student, teacher, torch.zeros(6, dtype=torch.long))
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])


CHECKS = [
    a_student_that_equals_the_teacher_has_no_loss,
    the_loss_is_never_negative,
    the_gradient_reaches_the_student_and_is_right,
    half_precision_outputs_do_not_overflow,
    repeating_the_batch_changes_nothing,
    outputs_of_different_shape_are_refused,
    inputs_are_not_changed,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_loss(loss, check):
    check(loss)


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-5, 5))
def test_standardised_logits_ignore_scale_and_shift(seed, scale, shift):
    student, teacher = outputs(seed=seed)
    moved = ZScoreKL()(scale * student + shift, teacher, None).item()
    assert moved == pytest.approx(ZScoreKL()(student, teacher, None).item(), rel=1e-5)


def test_probabilities_of_a_sigmoid_give_the_loss_of_their_logits():
    student, teacher = outputs(classes=1)
    by_logits = BinaryKL()(student, teacher, None).item()
    by_probabilities = BinaryKL(probabilities=True)(student.sigmoid(), teacher.sigmoid(), None).item()
    assert by_probabilities == pytest.approx(by_logits, rel=1e-6)


def test_probabilities_of_a_softmax_give_the_loss_of_their_logits():
    student, teacher = outputs()
    by_logits = KL(1.0)(student, teacher, None).item()
    both = student.softmax(1), teacher.softmax(1)
    assert KL(1.0, probabilities=True)(*both, None).item() == pytest.approx(by_logits, rel=1e-4)


def test_padded_tokens_do_not_count():
    student, teacher = outputs(rows=4)
    target = torch.tensor([1, -100, 2, -100])
    used = KL()(student[[0, 2]], teacher[[0, 2]], None).item()
    assert KL()(student, teacher, target).item() == pytest.approx(used, rel=1e-12)


def test_the_class_axis_of_an_image_is_the_second():
    student, teacher = (torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(2))
    flat = [t.movedim(1, -1).reshape(-1, 3) for t in (student, teacher)]
    assert KL(axis=1)(student, teacher, None).item() == pytest.approx(KL()(*flat, None).item(), rel=1e-12)


def test_two_classes_are_too_few_to_standardise():
    with pytest.raises(ArgumentError, match="at least 3 classes"):
        ZScoreKL()(torch.zeros(2, 2), torch.zeros(2, 2), None)


def test_every_kind_of_task_has_a_loss():
    for kind in RULES:
        assert callable(default_loss(kind))
    with pytest.raises(ArgumentError, match="`task_kind` must be one of"):
        default_loss("classifcation")


@pytest.mark.parametrize(
    ("teacher", "target", "expected"),
    [
        (torch.randn(8, 10), torch.arange(8), KL(2.0)),
        (torch.randn(8, 100), torch.arange(8), ZScoreKL()),
        (torch.randn(8, 2), torch.arange(8) % 2, KL()),
        (torch.randn(8, 10).softmax(1), torch.arange(8), KL(1.0, probabilities=True)),
        (torch.randn(8, 1).sigmoid(), (torch.arange(8) % 2).float()[:, None], BinaryKL(probabilities=True)),
        (10 * torch.randn(8, 1), (torch.arange(8) % 2).float()[:, None], BinaryKL()),
        (torch.randn(8, 3), torch.randn(8, 3), MSE()),
        (torch.randn(8, 3), None, MSE()),
        (torch.randn(2, 4, 3, 3), torch.zeros(2, 3, 3, dtype=torch.long), KL(axis=1)),
    ],
)
def test_the_loss_fits_what_the_teacher_gives(teacher, target, expected):
    assert loss_for(teacher, target) == expected


def test_decoupled_distillation_with_the_teachers_own_weight_is_kl():
    student, teacher = outputs(rows=1)
    p = softmax(teacher.numpy()[0])
    whole = KL(1.0)(student, teacher, None).item()
    parts = DKD(alpha=1.0, beta=1 - p[3], temperature=1.0)(student, teacher, torch.tensor([3])).item()
    assert parts == pytest.approx(whole, rel=1e-9)


def test_decoupled_distillation_asks_for_labels_and_three_classes():
    with pytest.raises(ArgumentError, match="needs the class of every sample"):
        DKD()(torch.zeros(2, 4), torch.zeros(2, 4), None)
    with pytest.raises(ArgumentError, match="at least 3 classes"):
        DKD()(torch.zeros(2, 2), torch.zeros(2, 2), torch.tensor([0, 1]))


@given(st.integers(0, 10**6), st.floats(0.1, 30))
def test_jensen_shannon_is_symmetric_and_at_most_log_two(seed, size):
    student, teacher = (size * t for t in outputs(seed=seed))
    value = JS()(student, teacher, None).item()
    assert value == pytest.approx(JS()(teacher, student, None).item(), rel=1e-9)
    assert -1e-12 <= value <= math.log(2) + 1e-12


def test_a_hint_compares_the_kept_channels_only():
    teacher = torch.randn(4, 6, 3, 3, dtype=torch.float64)
    kept = Hint(keep=(4, 1))
    assert kept(teacher[:, [4, 1]], teacher, None).item() == 0
    assert kept(teacher[:, [1, 4]], teacher, None).item() > 0.1
    with pytest.raises(ArgumentError, match="channel 9 of 6"):
        Hint(keep=(9,))(teacher[:, :1], teacher, None)


def test_a_hint_does_not_depend_on_the_unit_of_a_channel():
    student, teacher = outputs()
    unit = torch.tensor([1.0, 10.0, 100.0, 0.1, 1.0], dtype=torch.float64)
    one = Hint(keep=(1,))(student[:, 1:2], teacher, None).item()
    assert Hint(keep=(1,))((student * unit)[:, 1:2], teacher * unit, None).item() == pytest.approx(
        one, rel=1e-9
    )


def test_relations_are_those_of_a_loop_over_heads():
    student, teacher = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 5, 12, dtype=torch.float64)
    total = 0.0
    for b in range(2):
        for head in range(4):
            s, t = (
                student[b, :, 2 * head : 2 * head + 2].numpy(),
                teacher[b, :, 3 * head : 3 * head + 3].numpy(),
            )
            for i in range(5):
                q, p = softmax(s[i] @ s.T / math.sqrt(2)), softmax(t[i] @ t.T / math.sqrt(3))
                total += float((p * np.log(p / q)).sum())
    assert Relation(heads=4)(student, teacher, None).item() == pytest.approx(total / (2 * 4 * 5), rel=1e-9)
    with pytest.raises(ArgumentError, match="must divide the width 8"):
        Relation(heads=3)(student, teacher, None)


def test_attention_maps_ignore_the_number_of_channels_and_their_scale():
    h = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert AttentionMap()(torch.cat([h, h], 1) * 5, h, None).item() < 1e-15
    assert AttentionMap()(h.flip(-1), h, None).item() > 0.01
    with pytest.raises(ArgumentError, match="maps of one size"):
        AttentionMap()(h, h[..., :2], None)


def test_labels_and_teacher_are_weighted():
    student, teacher = outputs()
    labels = torch.nn.functional.cross_entropy
    mixed = WithLabels(labels, KL(), alpha=0.25)(student, teacher, TARGET)
    expected = 0.25 * labels(student, TARGET) + 0.75 * KL()(student, teacher, TARGET)
    assert mixed.item() == pytest.approx(expected.item(), rel=1e-12)
    with pytest.raises(DataError, match="the batch has none"):
        WithLabels(labels, KL())(student, teacher, None)
