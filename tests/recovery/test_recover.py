"""The ladder: every rung brings the student closer or is undone; the teacher is never changed."""

import copy

import pytest
import torch
from torch import nn

from tersor.distillation.kl import KL, BinaryKL
from tersor.errors import ArgumentError, DataError
from tersor.loading.task import Batch
from tersor.recovery.epochs import InMemory
from tersor.recovery.norms import reestimate_norms, training_mode
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.settings import Settings


def network(width=16, seed=0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 5))


def settled(width=16, seed=0) -> nn.Sequential:
    model = network(width, seed)
    reestimate_norms(model, list(data().batches(128)))
    return model.eval()


def data(samples=512, labels=True) -> InMemory:
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1)) * 2 + 1
    return InMemory(x, torch.arange(samples) % 5 if labels else None)


def state(model: nn.Module) -> list[torch.Tensor]:
    return [t.clone() for t in model.state_dict().values()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_narrow_student_comes_closer_and_nobody_else_changes():
    student, teacher = network(8, seed=3), settled()
    teacher.train()
    before = state(student), state(teacher)
    recovered = recover(student, teacher, data(), epochs=8, ladder=Ladder(batch=32))
    assert recovered.rungs[0].name == "norms"
    assert recovered.rungs[-1].after < 0.3 * recovered.rungs[0].before
    assert equal(before[0], state(student))
    assert equal(before[1], state(teacher))
    assert teacher.training
    assert isinstance(recovered.loss, KL)
    assert "SGD" in recovered.reason


def test_broken_statistics_are_mended_without_a_training_step():
    teacher = settled()
    student = copy.deepcopy(teacher)
    student[1].running_mean.fill_(9.0)
    recovered = recover(student, teacher, data(), epochs=0)
    assert recovered.losses == ()
    assert recovered.rungs[0].after < 0.05 * recovered.rungs[0].before


def test_a_rung_that_does_harm_is_undone():
    teacher = settled()
    recovered = recover(teacher, teacher, data(), epochs=1, ladder=Ladder(lr=5.0), optimizer="sgd")
    assert [rung.kept for rung in recovered.rungs if rung.name == "distillation"] == [False]
    assert equal(state(recovered.model), state(teacher)) or recovered.rungs[0].kept


def test_climbing_stops_once_the_score_is_enough():
    ladder = Ladder(score=lambda model: 1.0, enough=0.9)
    recovered = recover(network(8), settled(), data(), epochs=1, ladder=ladder)
    assert len(recovered.rungs) == 1
    assert recovered.rungs[0].score == 1.0


def test_the_student_itself_is_changed_where_the_caller_says_so():
    student = network(8)
    recovered = recover(student, settled(), data(), ladder=Ladder(training=Settings(in_place=True)))
    assert recovered.model is student


def test_masks_stay_in_force():
    mask = (torch.arange(64).view(16, 4) % 2).float()
    ladder = Ladder(training=Settings(hold={"0.weight": mask}))
    recovered = recover(network(seed=2), settled(), data(), ladder=ladder)
    assert (recovered.model.state_dict()["0.weight"][mask == 0] == 0).all()


def test_no_labels_are_needed():
    recovered = recover(network(8), settled(), data(labels=False), epochs=4, loss=KL())
    assert recovered.rungs[-1].after < recovered.rungs[-1].before


def test_different_outputs_are_refused_with_both_shapes():
    with pytest.raises(ArgumentError, match=r"The student gives \(128, 5\) and the teacher \(128, 3\)"):
        recover(network(), nn.Linear(4, 3), data())


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="is empty"):
        recover(network(), settled(), data(0))


def test_an_unknown_rung_is_refused():
    with pytest.raises(ArgumentError, match="`rungs` must be one of"):
        Ladder(rungs=("norm",))


def test_a_fake_quantized_student_is_trained_through_its_own_forward():
    class Rounded(nn.Linear):
        def forward(self, x):
            rounded = (self.weight * 4).round() / 4
            return nn.functional.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)

    torch.manual_seed(0)
    teacher, student = nn.Linear(4, 5), Rounded(4, 5)
    recovered = recover(student, teacher, data(), epochs=20, optimizer="adamw", ladder=Ladder(lr=0.02))
    assert recovered.rungs[-1].after < 0.5 * recovered.rungs[-1].before
    assert type(recovered.model) is Rounded


def test_statistics_are_the_means_over_batches():
    torch.manual_seed(0)
    batches = [Batch((torch.randn(16, 4) * (i + 1),), None, tuple(range(16))) for i in range(3)]
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))
    model.train()
    assert reestimate_norms(model, batches) == 1
    means = torch.stack([b.inputs[0].mean(0) for b in batches]).mean(0)
    variances = torch.stack([b.inputs[0].var(0) for b in batches]).mean(0)
    torch.testing.assert_close(model[0].running_mean, means)
    torch.testing.assert_close(model[0].running_var, variances)
    assert model.training
    assert model[0].momentum == 0.1


def test_batches_of_one_leave_statistics_alone():
    model = nn.Sequential(nn.BatchNorm1d(4))
    assert reestimate_norms(model, [Batch((torch.ones(1, 4),), None, (0,))]) == 0
    assert torch.equal(model[0].running_mean, torch.zeros(4))


def test_a_network_that_ends_in_one_sigmoid_unit_recovers():
    def binary(width):
        torch.manual_seed(width)
        return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1), nn.Sigmoid())

    x = torch.randn(512, 4, generator=torch.Generator().manual_seed(0))
    split = InMemory(x, (x[:, :1] > 0).float())
    recovered = recover(
        binary(8), binary(16), split, epochs=20, ladder=Ladder(batch=32, task_kind="classification")
    )
    assert recovered.loss == BinaryKL(probabilities=True)
    assert recovered.rungs[-1].after < 0.1 * recovered.rungs[0].before


class Forgetful(nn.Module):
    """A network that drops units by a function, and notes in which mode it and its layers were."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Linear(4, 32), nn.BatchNorm1d(32), nn.Linear(32, 3)
        self.modes = set()

    def forward(self, x):
        self.modes.add((self.training, self.norm.training))
        hidden = torch.relu(self.norm(self.first(x)))
        return self.last(nn.functional.dropout(hidden, 0.5, self.training))


def test_units_are_dropped_in_recovery_only_where_that_is_asked_for():
    teacher, split = Forgetful(), InMemory(torch.randn(64, 4))
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.last.weight += 0.1 * torch.randn_like(student.last.weight)

    def recovered(dropout):
        ladder = Ladder(rungs=("distillation",), batch=16, lr=1e-3, dropout=dropout)
        return recover(student, teacher, split, epochs=10, optimizer="adamw", ladder=ladder)

    without = recovered(False)
    assert without.rungs[0].after < without.rungs[0].before
    assert without.model.modes == {(False, False), (False, True)}
    # The noise of its own moves a student away that is nearly there: the rung is undone, and the student given back.
    assert recovered(True).rungs[0].kept is False


@pytest.mark.parametrize("samples", [1, 2])
def test_without_dropout_norms_learn_statistics_and_recurrent_layers_stay_trainable(samples):
    model = nn.ModuleList([nn.Dropout(), nn.BatchNorm1d(3), nn.GRU(3, 3)]).eval()
    with training_mode(model, samples, dropout=False):
        assert [layer.training for layer in model] == [False, samples > 1, True]
