"""Mixtures of samples: the teacher answers for what is shown, labels follow the shares, and words are left alone."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tersor.distillation.combined import with_labels
from tersor.distillation.kl import KL
from tersor.loading.task import Batch
from tersor.recovery.epochs import InMemory
from tersor.recovery.mixing import imitation_between
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.teacher import live


class Seen(nn.Module):
    """Gives back logits that tell what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3).double()
        self.shown: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shown.append(x.detach().clone())
        return self.linear(x)


def batch(ids: tuple[int, ...] = (4, 9, 2)) -> Batch:
    return Batch((torch.eye(3, dtype=torch.float64),), torch.tensor([0, 1, 2]), ids)


def test_student_and_teacher_see_the_same_mixtures_of_a_sample_and_less_of_the_one_before_it():
    student, teacher = Seen(), Seen()
    imitation_between(live(teacher), KL())(student, batch())
    shown = student.shown[0]
    shares = shown.diagonal()
    assert bool((shares >= 0.5).all())
    assert bool((shares <= 1).all())
    assert len(set(shares.tolist())) == 3
    assert torch.equal(shown, teacher.shown[0])
    before = torch.eye(3)[[2, 0, 1]]
    assert torch.allclose(shown, shares.diag() + (1 - shares)[:, None] * before)


def test_a_sample_keeps_its_label():
    torch.manual_seed(0)
    student, teacher = Seen(), Seen()
    loss = with_labels(KL(), F.cross_entropy, alpha=0.3)
    found = imitation_between(live(teacher), loss)(student, batch())
    given, wanted = (model.linear(student.shown[0]).log_softmax(1) for model in (student, teacher))
    divergence = (wanted.exp() * (wanted - given)).sum(1).mean()
    assert found.item() == pytest.approx((0.7 * divergence - 0.3 * given.diagonal().mean()).item(), rel=1e-6)


def test_a_batch_is_mixed_the_same_way_again_and_another_order_or_seed_differently():
    shown = []
    for ids, seed in (((4, 9, 2), 0), ((4, 9, 2), 0), ((9, 4, 2), 0), ((4, 9, 2), 1)):
        student = Seen()
        imitation_between(live(Seen()), KL(), seed=seed)(student, batch(ids))
        shown.append(student.shown[0])
    assert torch.equal(shown[0], shown[1])
    assert not torch.equal(shown[0], shown[2])
    assert not torch.equal(shown[0], shown[3])


def test_samples_without_labels_are_mixed_too():
    plain = Batch((torch.eye(3, dtype=torch.float64),), None, (0, 1, 2))
    teacher = Seen()
    assert imitation_between(live(teacher), KL())(copy.deepcopy(teacher), plain).item() == pytest.approx(
        0, abs=1e-12
    )


def test_statistics_after_training_on_mixtures_are_those_of_samples():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(512, 4, generator=generator)
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5)).eval()
    student = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
    ladder = Ladder(batch=64, between=True)
    made = recover(student, teacher, InMemory(x), epochs=20, ladder=ladder)
    assert made.rungs[-1].kept
    assert made.rungs[-1].after < 0.5 * made.rungs[0].before
    linear, norm, *_ = made.model.children()
    variance = linear(x).var(0)
    assert torch.allclose(norm.get_buffer("running_var"), variance, rtol=0.15)


def test_words_are_shown_as_they_are():
    ids = torch.randint(0, 7, (64, 5), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(20, 3)).eval()
    student = nn.Sequential(nn.Embedding(7, 2), nn.Flatten(), nn.Linear(10, 3))
    mixed, plain = (
        recover(student, teacher, InMemory(ids), epochs=4, ladder=Ladder(batch=16, between=between)).losses
        for between in (True, False)
    )
    assert mixed == plain
