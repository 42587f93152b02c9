"""A run that is killed goes on to the same bits as one that is not."""

import multiprocessing
import os
import random
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tersor.errors import ArgumentError, DataError
from tersor.optimizers.registry import RECIPES, make_recipe
from tersor.recovery.checkpoint import load
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import train
from tersor.recovery.settings import Settings


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))


def data() -> InMemory:
    x = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    return InMemory(x, (x[:, 0] * x[:, 1] > 0).long())


def run(checkpoint=None, on_step=None, optimizer="adamw"):
    settings = Settings(average=0.9, checkpoint=checkpoint, every=3, on_step=on_step)
    return train(
        network(),
        Epochs(data(), 32, 6),
        loss=F.cross_entropy,
        optimizer=make_recipe(optimizer, lr=0.05),
        settings=settings,
    )


def same(first, second) -> bool:
    a, b = first.model.state_dict(), second.model.state_dict()
    return first.losses == second.losses and all(torch.equal(a[name], b[name]) for name in a)


def test_ten_kills_at_random_moments_change_no_bit(tmp_path):
    torch.set_num_threads(1)
    undisturbed, path, moments = run(), tmp_path / "run.safetensors", random.Random(0)
    context, reached = multiprocessing.get_context("fork"), []
    for _ in range(10):
        told, tell = os.pipe()
        signal = lambda *_, tell=tell: os.write(tell, b".")
        child = context.Process(target=run, args=(path,), kwargs={"on_step": signal})
        child.start()
        os.close(tell)
        for _ in range(moments.randrange(1, 6)):
            os.read(told, 1)
        time.sleep(moments.uniform(0, 0.01))
        child.kill()
        child.join()
        os.close(told)
        stored = load(path)
        reached.append(stored.numbers["progress"]["step"] if stored else 0)
    assert reached == sorted(reached)
    assert reached[-1] > 0
    assert same(run(path), undisturbed)


@pytest.mark.parametrize("optimizer", RECIPES)
def test_every_optimizer_resumes_to_the_same_bits(tmp_path, optimizer):
    class Stop(Exception):
        pass

    def stop(step, *_):
        if step == 20:
            raise Stop

    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        run(path, on_step=stop, optimizer=optimizer)
    assert load(path).numbers["progress"]["step"] == 18
    assert same(run(path, optimizer=optimizer), run(optimizer=optimizer))


def test_a_finished_run_is_not_run_again(tmp_path):
    path, steps = tmp_path / "run.safetensors", []
    first = run(path)
    assert same(run(path, on_step=lambda *step: steps.append(step)), first)
    assert steps == []


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(DataError, match="Delete it to start afresh"):
        run(path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    run(path)
    with pytest.raises(ArgumentError, match="belongs to another model"):
        train(
            nn.Linear(4, 2), Epochs(data(), 32), loss=F.cross_entropy, optimizer=make_recipe("sgd", lr=0.1),
            settings=Settings(checkpoint=path),
        )  # fmt: skip
