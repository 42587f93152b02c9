"""Least squares, block reconstruction, the cache of teacher outputs, and views of samples."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from tersor.distillation.kl import KL
from tersor.errors import DataError
from tersor.loading.task import Batch
from tersor.recovery.blocks import Reconstruction, reconstruct_blocks
from tersor.recovery.cache import TeacherCache, fingerprint
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.layers import refit_layers
from tersor.recovery.norms import reestimate_norms
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.views import Views, counter_rng, shift_and_flip
from tersor.surgery.hold import Holder


def images(samples=384) -> InMemory:
    x = torch.randn(samples, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    return InMemory(x, torch.arange(samples) % 5)


def network(seed=0, width=6) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 8, 3, stride=2, padding="valid", dilation=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(72, 5),
    )  # fmt: skip
    reestimate_norms(model, list(images().batches(64)))
    return model.eval()


def error(student, teacher) -> float:
    x = images(600).inputs[384:]
    with torch.no_grad():
        return float((student(x) - teacher(x)).square().mean())


@pytest.mark.parametrize("position", [0, 3, 6])
def test_a_ruined_layer_is_found_again_from_data_alone(position):
    teacher = network()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[position].weight.normal_()
    before = error(student, teacher)
    assert refit_layers(student, teacher, list(images().batches(32)), ridge=1e-6) == 3
    assert error(student, teacher) < 1e-2 * before


def test_refitting_lets_kept_channels_do_the_work_of_their_cut_copies():
    teacher, keep = network(), [0, 1, 2, 3]
    with torch.no_grad():
        teacher[0].weight[4:] = teacher[0].weight[:2]
        teacher[1].running_mean[4:], teacher[1].running_var[4:] = (
            teacher[1].running_mean[:2],
            teacher[1].running_var[:2],
        )
    student = network(width=4)
    with torch.no_grad():
        student[0].weight.copy_(teacher[0].weight[keep])
        student[3].weight.copy_(teacher[3].weight[:, keep])
        student[3].bias.copy_(teacher[3].bias)
        student[1].running_mean.copy_(teacher[1].running_mean[keep])
        student[1].running_var.copy_(teacher[1].running_var[keep])
    student[6].load_state_dict(teacher[6].state_dict())
    before = error(student, teacher)
    assert refit_layers(student, teacher, list(images().batches(128)), kept={"0": keep}, ridge=1e-4) == 3
    assert error(student, teacher) < 0.05 * before


def test_layers_with_held_zeros_only_get_their_bias_corrected():
    teacher, student = network(), network(seed=3)
    before = student[6].weight.clone(), student[6].bias.clone()
    refit_layers(student, teacher, list(images().batches(32)), masked=["6.weight"])
    assert torch.equal(student[6].weight, before[0])
    assert not torch.equal(student[6].bias, before[1])


def test_a_subclass_with_its_own_forward_is_left_alone():
    class Rounded(nn.Linear):
        def forward(self, x):
            return super().forward(x.round())

    torch.manual_seed(0)
    student, teacher = Rounded(4, 2), nn.Linear(4, 2)
    x = torch.randn(32, 4)
    assert refit_layers(student, teacher, [Batch((x,), None, tuple(range(32)))]) == 0


def test_blocks_come_closer_one_by_one_and_masks_hold():
    teacher = network()
    student = copy.deepcopy(teacher)
    mask = (torch.arange(student[3].weight.numel()).view_as(student[3].weight) % 2).float()
    holder = Holder(student, {"3.weight": mask})
    before = error(student, teacher)
    count = reconstruct_blocks(
        student, teacher, list(images().batches(32)), how=Reconstruction(steps=60, lr=5e-3), holder=holder
    )
    assert count >= 2
    assert error(student, teacher) < 0.8 * before
    assert (student[3].weight[mask == 0] == 0).all()
    assert not any(p.grad is not None for p in student.parameters())


def test_every_rung_of_the_ladder_reports_gain_and_cost():
    teacher = network()
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student[0].weight.add_(0.1 * torch.randn_like(student[0].weight))
        student[3].weight.add_(0.1 * torch.randn_like(student[3].weight))
    ladder = Ladder(
        rungs=("norms", "layers", "blocks", "distillation"), batch=32, score=lambda m: -error(m, teacher)
    )
    recovered = recover(student, teacher, images(), epochs=3, ladder=ladder)
    assert {rung.name for rung in recovered.rungs} >= {"norms", "layers", "distillation"}
    assert all(rung.wall_s > 0 and rung.note for rung in recovered.rungs)
    assert all(rung.after <= rung.before for rung in recovered.rungs if rung.kept)
    assert error(recovered.model, teacher) < 0.2 * error(student, teacher)


class Counting(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.samples = model, 0

    def forward(self, x):
        self.samples += len(x)
        return self.model(x)


def test_the_teacher_runs_once_for_each_sample_with_a_cache(tmp_path):
    teacher = Counting(network())
    ladder = Ladder(rungs=("distillation",), batch=32, calibration=32, cache=tmp_path)
    first = recover(network(1), teacher, images(), epochs=6, ladder=ladder)
    # The probe before and after, the choice of the loss, one batch asked again as a check, and each sample once.
    assert teacher.samples <= 384 + 32 * 4
    teacher.samples = 0
    again = recover(network(1), teacher, images(), epochs=6, ladder=ladder)
    # The first batch tells the shape of an output, and with it which file to open.
    assert teacher.samples <= 32 * 5
    assert again.losses == first.losses


def test_cached_and_live_outputs_train_the_same_student(monkeypatch):
    train = lambda: recover(
        network(1), network(), images(), epochs=2, ladder=Ladder(rungs=("distillation",), batch=32)
    )
    cached = train()
    monkeypatch.setattr("tersor.recovery.recover.TeacherCache", lambda teacher, *_, **__: teacher)
    assert train().losses == cached.losses


def test_a_reopened_cache_answers_without_its_teacher(tmp_path):
    batch = Batch((torch.tensor([[1.0], [2.0]]),), None, (5, -7))
    TeacherCache(lambda b: 3 * b.inputs[0], 4, folder=tmp_path)(batch)

    def refuse(_):
        raise AssertionError("asked again")

    reopened = TeacherCache(refuse, 4, folder=tmp_path)
    reopened._open((1,), whole=False)
    reopened._checked = True
    assert reopened(batch).tolist() == [[3.0], [6.0]]


def test_another_key_is_another_file(tmp_path):
    batch = Batch((torch.ones(1, 1),), None, (0,))
    assert TeacherCache(lambda b: b.inputs[0], 1, folder=tmp_path, key="a")(batch).item() == 1
    assert TeacherCache(lambda b: 2 * b.inputs[0], 1, folder=tmp_path, key="b")(batch).item() == 2


def test_ids_that_do_not_stand_for_one_sample_are_noticed():
    cache = TeacherCache(lambda b: b.inputs[0], 10)
    for value in (1.0, 2.0, 3.0):
        answer = cache(Batch((torch.full((1, 1), value),), None, (0,)))
    assert not cache.stable
    assert answer.item() == 3.0


def test_the_teacher_is_asked_for_the_new_samples_of_a_batch_only():
    asked = []

    def teacher(batch):
        asked.append(batch.ids)
        return 2 * batch.inputs[0]

    cache, x = TeacherCache(teacher, 10), torch.arange(4.0)[:, None]
    cache(Batch((x[:2],), None, (0, 1)))
    mixed = cache(Batch((x[[3, 1, 2]],), None, (3, 1, 2)))
    assert mixed.flatten().tolist() == [6.0, 2.0, 4.0]
    assert asked == [(0, 1), (3, 2)]


def test_a_full_cache_still_answers():
    cache = TeacherCache(lambda b: b.inputs[0], 1)
    for sample in range(3):
        assert cache(Batch((torch.full((1, 1), float(sample)),), None, (sample,))).item() == sample


def test_a_cache_takes_no_more_disk_than_it_may_and_asks_for_the_rest(tmp_path):
    asked, x = [], torch.arange(20.0).view(10, 2)

    def teacher(batch):
        asked.append(batch.ids)
        return 3 * batch.inputs[0]

    # A row is two numbers of four bytes and an id of eight.
    cache = TeacherCache(teacher, 10, folder=tmp_path, most_bytes=7 * 16 + 15)
    batch = lambda *ids: Batch((x[list(ids)],), None, ids)
    for _ in range(2):
        for ids in ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9)):
            assert torch.equal(cache(batch(*ids)), 3 * x[list(ids)])
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 7 * 16
    # Asked again: what has no place, and one whole batch as a check.
    assert asked == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9), (0, 1, 2, 3), (7,), (8, 9)]
    assert torch.equal(cache(batch(8, 1, 9, 0)), 3 * x[[8, 1, 9, 0]])
    assert asked[-1] == (8, 9)


def test_a_cache_without_room_for_one_answer_writes_nothing(tmp_path):
    cache = TeacherCache(lambda b: b.inputs[0], 4, folder=tmp_path, most_bytes=8)
    for _ in range(2):
        assert cache(Batch((torch.ones(2, 1),), None, (0, 1))).tolist() == [[1.0], [1.0]]
    assert not list(tmp_path.iterdir())


class Words(nn.Module):
    """A language model of 5,000 words, most of them rare."""

    def __init__(self, width):
        super().__init__()
        self.embed, self.head = nn.Embedding(5000, width), nn.Linear(width, 5000)

    def forward(self, tokens):
        return self.head(self.embed(tokens))


@pytest.mark.parametrize("kind", ["language", "tokens"])
def test_a_language_model_of_many_words_recovers_on_a_cache_of_draws(tmp_path, kind):
    torch.manual_seed(0)
    teacher = Words(8)
    with torch.no_grad():
        teacher.head.weight.mul_(8)
    student = copy.deepcopy(teacher)
    with torch.no_grad():
        student.head.weight.add_(2 * torch.randn_like(student.head.weight))
    x = torch.randint(0, 20, (128, 8), generator=torch.Generator().manual_seed(0))
    ladder = Ladder(
        rungs=("distillation",), batch=32, calibration=32, task_kind=kind, cache=tmp_path, lr=0.02
    )
    split = InMemory(x[:, :-1], x[:, 1:])
    (rung,) = recover(student, teacher, split, epochs=8, optimizer="adamw", ladder=ladder).rungs
    assert rung.kept
    assert rung.after < 0.6 * rung.before
    size = sum(path.stat().st_size for path in tmp_path.glob("*.answers"))
    assert size == 128 * 7 * 50 * 4 < 0.05 * 128 * 7 * 5000 * 2
    # A loss that was asked for needs every class.
    whole = replace(ladder, cache=tmp_path / "whole")
    recover(student, teacher, split, epochs=2, loss=KL(), optimizer="adamw", ladder=whole)
    assert sum(p.stat().st_size for p in (tmp_path / "whole").glob("*.answers")) == 128 * 7 * 5000 * 2


def test_a_torn_cache_file_is_refused(tmp_path):
    batch = Batch((torch.ones(1, 1),), None, (0,))
    TeacherCache(lambda b: b.inputs[0], 4, folder=tmp_path)(batch)
    next(tmp_path.glob("*.answers")).write_bytes(b"torn")
    with pytest.raises(DataError, match="Delete it and run again"):
        TeacherCache(lambda b: b.inputs[0], 4, folder=tmp_path)(batch)


def test_the_fingerprint_sees_every_weight():
    a, b = network(), network()
    assert fingerprint(a) == fingerprint(b)
    with torch.no_grad():
        b[6].bias[0] += 1e-6
    assert fingerprint(a) != fingerprint(b)


def test_a_view_is_the_same_in_any_order_and_epoch():
    split = Views(images(16), shift_and_flip, views=3, seed=5)
    seen: dict[int, torch.Tensor] = {}
    repeated = 0
    for order in range(12):
        for batch in split.batches(5, shuffle=order):
            for row, sample in zip(batch.inputs[0], batch.ids, strict=True):
                repeated += sample in seen
                assert torch.equal(seen.setdefault(sample, row), row)
    assert len(seen) == 16 * 3
    assert repeated > 0


def test_random_numbers_of_a_view_depend_on_seed_sample_and_view():
    draws = {counter_rng(s, i, v).random() for s in range(3) for i in range(-2, 3) for v in range(3)}
    assert len(draws) == 45


def test_shifted_images_are_windows_of_the_padded_one():
    x = torch.arange(16.0).view(1, 1, 4, 4) + 1
    padded = nn.functional.pad(x, [2] * 4)
    for sample in range(20):
        (moved,) = shift_and_flip((x,), [counter_rng(0, sample, 0)], padding=2)
        windows = [padded[:, :, i : i + 4, j : j + 4] for i in range(5) for j in range(5)]
        assert any(torch.equal(moved, w) or torch.equal(moved, w.flip(-1)) for w in windows)


def test_views_train_with_cached_outputs():
    ladder = Ladder(rungs=("distillation",), batch=32, augment=shift_and_flip, views=2)
    recovered = recover(network(1), network(), images(), epochs=6, ladder=ladder)
    assert len(recovered.losses) == len(Epochs(images(), 32, 6))
    assert sum(recovered.losses[-3:]) < sum(recovered.losses[:3])
