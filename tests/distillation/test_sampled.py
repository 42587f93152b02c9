"""Draws that stand for a large vocabulary: unbiased, small, and the same for the same sample."""

import pytest
import torch
from torch import nn

from tersor.distillation.sampled import SampledCrossEntropy, draw_classes
from tersor.errors import ArgumentError
from tersor.loading.task import Batch
from tersor.recovery.cache import TeacherCache, drawn
from tersor.recovery.train import distill


def test_loss_and_gradient_are_those_of_the_whole_distribution_on_average():
    torch.manual_seed(0)
    teacher, student = 2 * torch.randn(6, 40), torch.randn(6, 40, dtype=torch.float64, requires_grad=True)
    p = teacher.double().softmax(-1)
    exact = -(p * student.log_softmax(-1)).sum(-1).mean()
    (wanted,) = torch.autograd.grad(exact, student)
    found = []
    for repeat in range(400):
        picked = draw_classes(
            teacher, 20, lambda index, r=repeat: torch.Generator().manual_seed(1000 * r + index)
        )
        loss = SampledCrossEntropy()(student, picked)
        found.append(torch.cat([loss.detach()[None], torch.autograd.grad(loss, student)[0].flatten()]))
    mean = torch.stack(found).mean(0)
    # Of 400 x 20 draws a position: five standard errors, and one draw more or less for rare classes.
    error = 5 * (p * (1 - p) / 8000).sqrt() + 1 / 8000
    assert ((mean[1:].view(6, 40) - wanted).abs() < error / 6).all()
    spread = torch.stack(found)[:, 0].std() / 20
    assert (mean[0] - exact).abs() < 5 * spread


def test_ignored_positions_do_not_count():
    student, picked = torch.randn(2, 3, 5), torch.randint(0, 5, (2, 3, 4), dtype=torch.int32)
    target = torch.tensor([[1, 2, -100], [-100, 0, 4]])
    loss = SampledCrossEntropy()
    kept = target != -100
    expected = loss(student[kept], picked[kept])
    torch.testing.assert_close(loss(student, picked, target), expected)


def test_something_else_than_draws_is_refused():
    with pytest.raises(ArgumentError, match="draw_classes"):
        SampledCrossEntropy()(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ArgumentError, match="`draws`"):
        draw_classes(torch.zeros(1, 3), 0, lambda _: torch.Generator())


def test_a_cache_of_draws_is_small_and_exact(tmp_path):
    calls, logits = [], torch.randn(8, 16, 5000)

    def teacher(batch):
        calls.append(batch.ids)
        return logits[list(batch.ids)]

    asked = drawn(teacher, draws=50)
    batch = Batch((torch.zeros(4, 1),), None, (6, 1, 3, 0))
    first = TeacherCache(asked, 8, folder=tmp_path, key="k")(batch)
    again = TeacherCache(asked, 8, folder=tmp_path, key="k")
    assert torch.equal(again(batch), first)
    assert torch.equal(again(batch), asked(batch))
    assert again.stable
    assert first.dtype == torch.int32
    size = sum(path.stat().st_size for path in tmp_path.glob("*.answers"))
    assert size == 8 * 16 * 50 * 4 < 0.05 * 8 * 16 * 5000 * 2
    reordered = asked(Batch((torch.zeros(2, 1),), None, (3, 6)))
    assert torch.equal(reordered[0], first[2])


def test_a_language_model_of_many_words_learns_from_draws():
    class Words(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.embed, self.head = nn.Embedding(4200, width), nn.Linear(width, 4200)

        def forward(self, tokens):
            return self.head(self.embed(tokens))

    torch.manual_seed(0)
    teacher, student = Words(16), Words(4)
    with torch.no_grad():
        teacher.head.weight.mul_(8)
    x = torch.randint(0, 20, (300, 9), generator=torch.Generator().manual_seed(0))
    said = []
    from tersor.recovery.course import Course

    learned = distill(
        student,
        teacher,
        (x[:, :-1], x[:, 1:]),
        epochs=3,
        optimizer="adamw",
        course=Course(say=said.append, lr=0.02),
    )
    assert any("SampledCrossEntropy" in line for line in said)
    assert learned.losses[-1] < learned.losses[0] - 0.3
