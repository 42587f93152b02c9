"""The race of stitched models: an unbiased distance, and losers that are given up early, rarely by mistake."""

import numpy as np
import pytest
import torch
from torch import nn

from tersor.distillation.kl import KL
from tersor.distillation.mse import MSE
from tersor.loading.build import build_task
from tersor.loading.task import Batch
from tersor.recovery.teacher import distance, imitation, live
from tersor.search.racing import CALL, MOST, Racing


def make_race(loss=None, batches=MOST // CALL, seed=0):
    torch.manual_seed(seed)
    teacher = nn.Linear(6, 5)
    parts = [
        Batch((torch.randn(CALL, 6),), None, tuple(range(i * CALL, (i + 1) * CALL))) for i in range(batches)
    ]
    return teacher, Racing(parts, [live(teacher)(part) for part in parts], loss or KL(temperature=2.0))


def disturbed(teacher, size, seed=1):
    generator = torch.Generator().manual_seed(seed)
    made = nn.Linear(6, 5)
    made.load_state_dict(
        {k: v + size * torch.randn(v.shape, generator=generator) for k, v in teacher.state_dict().items()}
    )
    return made


def test_the_first_model_is_measured_on_all_samples_as_the_mean_loss():
    teacher, racing = make_race()
    student = disturbed(teacher, 0.3)
    naive = distance(student, list(racing.batches), imitation(live(teacher), KL(temperature=2.0)))
    assert racing(student) == pytest.approx(naive, rel=1e-5)
    assert racing.raced == [1, MOST // 8]


def test_a_model_that_is_clearly_further_is_given_up_early_and_keeps_its_rank():
    teacher, racing = make_race()
    near, far = disturbed(teacher, 0.1), disturbed(teacher, 1.0)
    close = racing(near)
    distant = racing(far)
    seen = racing.raced[1] - MOST // 8
    assert seen < MOST // 8 / 2
    whole = distance(far, list(racing.batches), imitation(live(teacher), KL(temperature=2.0)))
    assert distant > close
    assert distant == pytest.approx(whole, rel=0.5)


def test_a_closer_model_takes_over():
    teacher, racing = make_race()
    racing(disturbed(teacher, 1.0))
    close = racing(disturbed(teacher, 0.1))
    assert racing.best.mean() == pytest.approx(close)


def test_a_model_that_is_not_among_the_choices_gives_nobody_up():
    teacher, racing = make_race()
    racing(disturbed(teacher, 0.01), counts=False)
    racing(disturbed(teacher, 1.0))
    assert racing.raced == [2, 2 * MOST // 8]


def test_an_equal_model_is_given_up_by_mistake_at_most_as_often_as_stated():
    """Independent draws of distances with the same law: a mistake has probability 5% at most."""
    rng = np.random.default_rng(0)
    mistakes = 0
    for _ in range(400):
        _, racing = make_race(batches=1)
        racing.best = rng.exponential(1.0, 64)
        mine = rng.exponential(1.0, 64)
        mistakes += any(racing._lost(mine[:n]) for n in range(8, 64, 8))
    assert mistakes / 400 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 400)


def test_a_broken_model_loses_without_an_error():
    teacher, racing = make_race()
    racing(disturbed(teacher, 0.1))
    broken = disturbed(teacher, 0.1)
    broken.weight.data.fill_(float("nan"))
    assert racing(broken) == np.inf
    assert racing.raced[1] < 2 * MOST // 8


def test_outputs_without_a_row_for_each_sample_are_one_observation_a_call():
    class Summed(nn.Module):
        def forward(self, x):
            return x.sum(0, keepdim=True)

    parts = [Batch((torch.randn(CALL, 3),), None, tuple(range(CALL))) for _ in range(3)]
    racing = Racing(parts, [live(Summed())(part) for part in parts], MSE(normalized=False))
    assert racing(Summed()) == 0.0
    assert racing.raced == [1, 3]


def test_the_samples_of_a_race_are_training_samples_with_their_targets():
    from types import SimpleNamespace

    from tersor.search.racing import racing_of

    x = torch.randn(900, 6, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(6, 3)
    task = build_task(model, (x, model(x).argmax(1).detach()), seed=0).task
    racing = racing_of(SimpleNamespace(task=task, request=SimpleNamespace(seed=0)))
    again = racing_of(SimpleNamespace(task=task, request=SimpleNamespace(seed=0)))
    trained = {i for batch in task.train.batches(64) for i in batch.ids}
    ids = [i for batch in racing.batches for i in batch.ids]
    assert set(ids) <= trained
    assert ids == [i for batch in again.batches for i in batch.ids]
