"""What the runs of this bench share: the zoo, the cut, and a process with a time limit for each model."""

import logging
import multiprocessing as mp
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from bench.coverage.by_hand import RECIPES, build_by_hand
from bench.coverage.images import LAYERS, TIMM, build_layer, build_timm, creator
from bench.coverage.zoo import NAMES, build, share
from tersor.graph.prove import prove
from tersor.graph.solve import solve
from tersor.graph.structure import Graph
from tersor.graph.trace import trace
from tersor.loading.inputs import Inputs
from tersor.planning.plan import Cut, Plan
from tersor.surgery.apply import close, kept_units
from tersor.surgery.verify import heal

#: Groups of each model that are permuted one by one; the comparison under masks covers all of them.
PROOFS = 2

Row: TypeAlias = dict[str, Any]

#: Every architecture, by the name of its row, with the function that makes it.
ZOO: dict[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    **{name: partial(build, name) for name in NAMES},
    **{name: partial(build_by_hand, name) for name in RECIPES},
    **{f"timm/{name}": partial(build_timm, name) for name in TIMM},
    **{f"torch/{name}": partial(build_layer, name) for name in LAYERS},
}


def half(graph: Graph, seed: int = 0) -> Plan:
    """Return a plan that removes half of every group, at random."""
    chance = np.random.default_rng(seed)
    cuts = [
        Cut(g.name, tuple(sorted(chance.choice(g.size, g.size - g.size // 2, replace=False).tolist())))
        for g in graph.groups
        if g.prunable
    ]
    return close(Plan(tuple(cuts)), graph)


def examine(model: nn.Module, inputs: Inputs) -> Row:
    """Return the row of one model."""
    start = time.perf_counter()
    graph = trace(model, inputs)
    traced = time.perf_counter() - start
    prunable = [group for group in graph.groups if group.prunable]
    plan = half(graph)
    healed = heal(model, plan, graph, inputs)
    kept = kept_units(healed.plan)
    reached = {member.tensor for group in prunable for member in group.members}
    proofs = [prove(group, model, inputs) for group in prunable[:PROOFS]]
    status = "exact" if healed.verdict.ok else "wrong"
    if healed.left_out:
        status = "healed"
    return {
        "status": status if healed.plan.edits else "locked",
        "class": type(model).__name__,
        "groups": len(graph.groups),
        "prunable": len(prunable),
        "worst_proof": max(proofs, default=0.0),
        "error": healed.verdict.error,
        "tolerance": healed.verdict.tolerance,
        "parameters": graph.parameters(),
        "reached": share(sum(n for name, n in graph.sizes.items() if name in reached), graph.parameters()),
        "kept": share(graph.parameters(kept), graph.parameters()),
        "attributes": len(solve(graph, kept)),
        "opaque": dict(graph.opaque),
        "left_out": [edit.group for edit in healed.left_out],
        "trace_s": round(traced, 2),
    }


def _worker(examine: Callable[[nn.Module, Inputs], Row], name: str, sender: Any) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    try:
        model, inputs = ZOO[name]()
        with torch.no_grad():
            model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    except Exception as error:
        sender.send({"status": "no baseline", "reason": _said(error)})
        return
    try:
        sender.send(examine(model, inputs))
    except Exception as error:
        missing = "not finite" in str(error)
        sender.send({"status": "no baseline" if missing else "stopped", "reason": _said(error)})


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"


def limited(examine: Callable[[nn.Module, Inputs], Row], name: str, limit_s: float) -> Row:
    """Examine one model in a process of its own, for at most `limit_s` seconds."""
    receiver, sender = mp.get_context("fork").Pipe(duplex=False)
    process = mp.get_context("fork").Process(target=_worker, args=(examine, name, sender))
    process.start()
    row = {"status": "stopped", "reason": f"time limit of {limit_s:g} s"}
    if receiver.poll(limit_s):
        try:
            row = receiver.recv()
        except EOFError:
            row = {"status": "stopped", "reason": "the process died"}
    process.kill()
    process.join()
    return row


def prepare() -> None:
    """Import once, before the processes fork, what every model needs."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    logging.disable(logging.CRITICAL)
    if find_spec("timm") and find_spec("torchvision"):
        creator()
    import transformers.models.auto.modeling_auto  # noqa: F401
