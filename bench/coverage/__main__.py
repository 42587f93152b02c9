"""Cut every group of every architecture in half, compare with the masked original, and write a table.

python -m bench.coverage                               all architectures
python -m bench.coverage bert timm/resnet18 torch/LSTM   some
"""

import argparse
import json
import logging
import multiprocessing as mp
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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

RESULTS = Path(__file__).parents[1] / "results"
#: Groups of each model that are permuted one by one; the comparison under masks covers all of them.
PROOFS = 2
STATUSES = {
    "exact": "every group was cut; the result equals the masked original",
    "healed": "exact after verification left out the edits that it found wrong",
    "locked": "no group can be cut",
    "no baseline": "the small random model itself gives values that are not finite, or does not run",
    "stopped": "an error or the time limit, named",
    "wrong": "a result that differs from the masked original was returned",
}


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


def examine(model: nn.Module, inputs: Inputs) -> dict[str, Any]:
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


def _worker(examine: Callable[[nn.Module, Inputs], dict[str, Any]], name: str, sender: Any) -> None:
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


def limited(
    examine: Callable[[nn.Module, Inputs], dict[str, Any]], name: str, limit_s: float
) -> dict[str, Any]:
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


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    counts = Counter(row["status"] for row in rows.values())
    ran = len(rows) - counts["no baseline"]
    lines = [
        "# Coverage",
        "",
        f"{len(rows)} architectures, {ran} with a baseline that runs: "
        + ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        + f". Exact or healed: {100 * (counts['exact'] + counts['healed']) / max(ran, 1):.1f} %.",
        "",
        *(f"- **{status}**: {text}" for status, text in STATUSES.items()),
        "",
        "| architecture | status | prunable groups | worst proof | error | parameters reached | kept | attributes | "
        "trace (s) | note |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(name, row) for name, row in rows.items())]) + "\n"


def _line(name: str, row: dict[str, Any]) -> str:
    if "class" not in row:
        return f"| {name} | {row['status']} | | | | | | | | {row.get('reason', '')} |"
    opaque = ", ".join(f"`{op}` x{count}" for op, count in row["opaque"].items())
    note = "; ".join(part for part in (opaque, ", ".join(row["left_out"])) if part)
    return (
        f"| {name} | {row['status']} | {row['prunable']} of {row['groups']} | {row['worst_proof']:.0e} | "
        f"{row['error']:.0e} | {row['reached']:.0%} | {row['kept']:.0%} | {row['attributes']} | {row['trace_s']} | "
        f"{note} |"
    )


def write(rows: dict[str, dict[str, Any]]) -> None:
    """Write both results."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    rows = dict(sorted(rows.items()))
    (RESULTS / "coverage.json").write_text(json.dumps(rows, indent=1))
    (RESULTS / "coverage.md").write_text(table(rows))


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(prog="python -m bench.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="architectures; all of the zoo if none is given")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per architecture")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the last run that are exact")
    options = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    logging.disable(logging.CRITICAL)
    # Imported once, before the processes fork.
    if find_spec("timm") and find_spec("torchvision"):
        creator()
    import transformers.models.auto.modeling_auto  # noqa: F401

    last = RESULTS / "coverage.json"
    rows = json.loads(last.read_text()) if last.exists() and (options.resume or options.names) else {}
    exact = {name for name, row in rows.items() if row["status"] == "exact"} if options.resume else set()
    names = [name for name in options.names or ZOO if name not in exact]
    with ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(limited, examine, name, options.limit): name for name in names}
        for done in as_completed(running):
            name, row = running[done], done.result()
            rows[name] = row
            print(f"{name:28s} {row['status']:12s} {row.get('reason', row.get('error'))}", flush=True)
            write(rows)
    print(table(rows).splitlines()[2])


if __name__ == "__main__":
    main()
