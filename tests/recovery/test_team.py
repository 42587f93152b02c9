"""One run on two processes: the curve of one process, to rounding."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tersor.distillation.kl import KL
from tersor.errors import ArgumentError
from tersor.loading.task import Batch
from tersor.optimizers.registry import make_optimizer, make_recipe
from tersor.recovery.epochs import Epochs, InMemory
from tersor.recovery.loop import train
from tersor.recovery.recover import Ladder, recover
from tersor.recovery.settings import Settings
from tersor.recovery.team import Team
from tersor.recovery.train import distill
from tersor.search.verbs import prune


def samples() -> InMemory:
    x = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    return InMemory(x, x[:, :3].argmax(1))


def network(width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, width), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 3))


def recovered(team: Team | None) -> list[float]:
    settings = Settings(team=team)
    # 90 samples in batches of 13 or less: the last one of each process differs.
    ladder = Ladder(rungs=("layers", "distillation"), batch=13, training=settings)
    return list(recover(network(8, 1), network(24, 0), samples(), epochs=3, ladder=ladder).losses)


def trained(team: Team | None) -> list[float]:
    done = train(
        network(8, 1), Epochs(samples(), 16, 3), loss=F.cross_entropy, optimizer=make_recipe("muon", lr=0.01),
        settings=Settings(team=team),
    )  # fmt: skip
    return list(done.losses)


def pruned_and_distilled() -> nn.Module:
    teacher = network(24, 0)
    student = prune(teacher, torch.zeros(2, 6), ratio=0.5).model
    split = samples()
    data = {"train": (split.inputs, split.target), "search": (split.inputs[:40] + 1, split.target[:40])}
    data["certification"] = (split.inputs[:40] - 1, split.target[:40])
    return distill(student, teacher, data, epochs=1, optimizer="adamw").model


def sharded(parts: int) -> list[float]:
    """Raw `fully_shard`, no Accelerate: plain steps on this process's half of each batch."""
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    model, teacher, losses = pruned_and_distilled().train(), network(24, 0), []
    if parts > 1:
        dist.init_process_group("gloo")
        mesh = dist.init_device_mesh("cpu", (parts,))
        for layer in (model[0], model[3]):
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = make_optimizer("adamw", list(model.parameters()), lr=0.01)
    for batch in Epochs(samples(), 18, 2):
        own = slice(dist.get_rank(), None, parts) if parts > 1 else slice(None)
        part = Batch((batch.inputs[0][own],), None, batch.ids[own])
        with torch.no_grad():
            wanted = teacher(*part.inputs)
        loss = KL()(model(*part.inputs), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        if parts > 1:
            dist.all_reduce(mean)
        losses.append(mean.item() / parts)
    return losses


def fully_sharded() -> Team:
    """FSDP2 through Accelerate, which offers it on accelerators alone: on the CPU its type is set by hand."""
    from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="size_based_wrap", min_num_params=20, cpu_ram_efficient_loading=False
    )
    accelerator = Accelerator(cpu=True)
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    assert accelerator.is_fsdp2
    return Team(accelerator)


def divided(team: Team | None) -> dict:
    """Recover a pruned student with held zeros, a running mean, and a teacher that is asked once."""
    teacher = network(24, 0)
    student = prune(teacher, torch.zeros(2, 6), ratio=0.5).model
    mask = torch.arange(student[0].weight.numel()).view_as(student[0].weight) % 3 > 0
    settings = Settings(team=team, hold={"0.weight": mask}, average=0.9, every=5)
    ladder = Ladder(rungs=("distillation",), batch=13, training=settings)
    done = recover(
        student, teacher, samples(), epochs=3, optimizer=make_recipe("adamw", lr=0.01), ladder=ladder
    )
    state = done.model.state_dict()
    return {
        "losses": list(done.losses),
        "rungs": [(rung.before, rung.after) for rung in done.rungs],
        "class": type(done.model).__name__,
        "plain": all(type(tensor) is torch.Tensor for tensor in state.values()),
        "held": bool((state["0.weight"][~mask] == 0).all()),
        "state": {name: tensor.flatten().tolist() for name, tensor in state.items()},
    }


def refused() -> str:
    settings = Settings(team=fully_sharded(), checkpoint=Path("run.safetensors"))
    try:
        train(
            network(8, 1), Epochs(samples(), 16, 1), loss=F.cross_entropy, optimizer=make_recipe("adamw", lr=0.01),
            settings=settings,
        )  # fmt: skip
    except ArgumentError as error:
        return str(error)
    return ""


def member(rank, port, name, path):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    found = {
        "sharded": lambda: sharded(2),
        "recovered": lambda: recovered(Team()),
        "trained": lambda: trained(Team()),
        "divided": lambda: divided(fully_sharded()),
        "refused": refused,
    }[name]()
    (path / f"{rank}.json").write_text(json.dumps(found))


def on_two(name, path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    members = [context.Process(target=member, args=(rank, port, name, path)) for rank in range(2)]
    for process in members:
        process.start()
    for process in members:
        process.join(120)
        assert process.exitcode == 0
    first, second = (json.loads((path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    return first


@pytest.mark.parametrize(("name", "alone"), [("recovered", recovered), ("trained", trained)])
def test_two_processes_have_the_curve_of_one(name, alone, tmp_path):
    pytest.importorskip("accelerate")
    assert on_two(name, tmp_path) == pytest.approx(alone(None), rel=1e-4, abs=1e-6)


def test_a_pruned_and_distilled_model_is_sharded_like_any_other(tmp_path):
    losses = on_two("sharded", tmp_path)
    assert losses == pytest.approx(sharded(1), rel=1e-4, abs=1e-6)
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_recovery_with_divided_weights_has_the_curve_of_one_process_and_gives_a_plain_model_back(tmp_path):
    pytest.importorskip("accelerate")
    two, one = on_two("divided", tmp_path), json.loads(json.dumps(divided(None)))
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-4, abs=1e-6)
    assert two["losses"][-1] < two["losses"][0]
    for name, values in one["state"].items():
        assert two["state"][name] == pytest.approx(values, rel=1e-3, abs=1e-5)
    for found, wanted in zip(two["rungs"], one["rungs"], strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)
    assert two["class"] == "Sequential"
    assert two["plain"]
    assert two["held"]


@pytest.mark.slow
def test_a_checkpoint_of_divided_weights_is_refused(tmp_path):
    pytest.importorskip("accelerate")
    assert "DDP" in on_two("refused", tmp_path)
