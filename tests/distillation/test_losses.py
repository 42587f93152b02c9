"""Each loss against a naive float64 reference, and the checks that every loss must pass."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tersor.distillation.kl import KL, BinaryKL
from tersor.distillation.mse import MSE
from tersor.distillation.rules import RULES, default_loss, loss_for
from tersor.distillation.zscore import ZScoreKL
from tersor.errors import ArgumentError


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


REFERENCES = [
    (KL(1.0), lambda s, t: naive_kl(s, t, 1.0)),
    (KL(4.0), lambda s, t: naive_kl(s, t, 4.0)),
    (BinaryKL(2.0), lambda s, t: naive_binary(s, t, 2.0)),
    (ZScoreKL(2.0), lambda s, t: naive_zscore(s, t, 2.0)),
    (MSE(), naive_mse),
    (MSE(normalized=False), lambda s, t: ((s - t) ** 2).mean()),
]
LOSSES = [loss for loss, _ in REFERENCES]


def outputs(rows=6, classes=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(rows, classes, generator=generator, dtype=dtype) for _ in range(2)]


@pytest.mark.parametrize(("loss", "reference"), REFERENCES, ids=lambda x: repr(x) if x in LOSSES else "")
def test_the_value_is_that_of_the_formula(loss, reference):
    student, teacher = outputs()
    assert loss(student, teacher, None).item() == pytest.approx(
        reference(student.numpy(), teacher.numpy()), rel=1e-9
    )


def a_student_that_equals_the_teacher_has_no_loss(loss):
    _, teacher = outputs()
    assert abs(loss(teacher, teacher, torch.zeros(6, dtype=torch.long)).item()) < 1e-9


def the_loss_is_never_negative(loss):
    for seed in range(20):
        student, teacher = outputs(seed=seed)
        assert loss(student, teacher, None).item() >= 0


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
    twice = loss(student.repeat(2, 1), teacher.repeat(2, 1), None)
    assert twice.item() == pytest.approx(loss(student, teacher, None).item(), rel=1e-9)


def outputs_of_different_shape_are_refused(loss):
    with pytest.raises(ArgumentError, match=r"The student gives \(6, 5\) and the teacher \(6, 4\)"):
        loss(torch.zeros(6, 5), torch.zeros(6, 4), None)


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
        (torch.randn(8, 10), torch.arange(8), ZScoreKL()),
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
