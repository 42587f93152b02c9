"""Torch-Pruning on the same models: cut at the same ratio, and held to the same check.

python -m bench.coverage.peer                 those in peer.txt
python -m bench.coverage.peer bert timm/dla34   some

It gets what it cannot know: the layers that make the outputs are ignored, and only the main output is used.
What it kept is read off the values of its weights. Its result is exact if it equals the original with
the other units excluded: by the masked oracle where the kept indices are units of groups, and else by
the original with removed weights at zero and its norms run on what stays. Either is enough.
"""

import argparse
import contextlib
import copy
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.coverage.harness import Row, limited, prepare
from bench.coverage.zoo import share
from tersor.errors import ModelError
from tersor.graph.oracle import masked_outputs
from tersor.graph.prove import as_double, relative_error
from tersor.graph.structure import Graph
from tersor.graph.trace import outputs_of, trace
from tersor.loading.inputs import Inputs, call
from tersor.surgery.verify import TOLERANCE

RESULTS = Path(__file__).parents[1] / "results"
LIST = Path(__file__).with_name("peer.txt").read_text().split()
STATUSES = {
    "exact": "runs, and equals the masked original",
    "corrupt": "runs, and is another function than the original without the removed units",
    "whole": "less than 3 % of the parameters went",
    "fails": "an error, or outputs of another shape",
    "time limit": "no answer in time",
}


def examine(model: nn.Module, inputs: Inputs) -> Row:
    """Return the row of one model, in float64 where it runs in that."""
    try:
        return _examined(_distinct(model, torch.float64), as_double(inputs), torch.float64)
    except ModelError:
        return _examined(_distinct(model, torch.float32), inputs, torch.float32)


def _examined(original: nn.Module, given: Inputs, dtype: torch.dtype) -> Row:
    graph = trace(original, given)
    small = copy.deepcopy(original)
    try:
        _prune(small, given, graph)
        with torch.no_grad():
            torch.manual_seed(0)
            outputs = outputs_of(call(small, given))
            torch.manual_seed(0)
            wanted = outputs_of(call(original, given))
    except Exception as error:  # the tool and the cut model may raise anything
        return {"status": "fails", "reason": f"{type(error).__name__}: {str(error).splitlines()[:1]}"[:160]}
    if [tuple(t.shape) for t in outputs] != [tuple(t.shape) for t in wanted]:
        return {"status": "fails", "reason": "the outputs have another shape"}
    left = share(_count(small), _count(original))
    if left > 0.97:
        return {"status": "whole", "kept": left}
    error = min(_errors(original, small, given, graph, outputs), default=float("inf"))
    return {
        "status": "exact" if error <= TOLERANCE[dtype] else "corrupt",
        "kept": left,
        "error": error,
    }


def _distinct(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy in which no two weights are equal, and none is so small that an error would hide."""
    made, generator = copy.deepcopy(model).to(dtype), torch.Generator().manual_seed(2)
    with torch.no_grad():
        for tensor in made.parameters():
            tensor.requires_grad_(tensor.is_floating_point())
            width = tensor[0].numel() if tensor.dim() > 1 else 100
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.add_((noise / max(width, 1) ** 0.5).to(tensor))
    return made.eval()


def _count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _prune(model: nn.Module, inputs: Inputs, graph: Graph) -> None:
    import torch_pruning as peer

    last = {m.tensor.rpartition(".")[0] for g in graph.groups if "output of" in g.reason for m in g.members}
    modules = dict(model.named_modules())
    last |= {name for name in _last_layer(model, inputs) if name}
    with contextlib.redirect_stdout(io.StringIO()):
        pruner = peer.pruner.BasePruner(
            model,
            inputs,
            importance=peer.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=[modules[name] for name in sorted(last) if name in modules and name],
            forward_fn=lambda made, example: outputs_of(call(made, example))[0],
        )
        pruner.step()


def _last_layer(model: nn.Module, inputs: Inputs) -> list[str]:
    """Return the name of the last linear layer or convolution that makes an axis of the output."""
    order: list[tuple[str, int]] = []
    hooks = [
        module.register_forward_hook(lambda m, _a, _o, name=name: order.append((name, m.weight.shape[0])))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    ]
    with torch.no_grad():
        sizes = set(outputs_of(call(model, inputs))[0].shape)
    for hook in hooks:
        hook.remove()
    return [name for name, size in reversed(order) if size in sizes][:1]


def _errors(
    original: nn.Module, small: nn.Module, inputs: Inputs, graph: Graph, outputs: list[Tensor]
) -> list[float]:
    """Return the distance to the masked original, by each way of masking that applies."""
    found: list[float] = []
    kept = _kept(original, small)
    if kept is None:
        return found
    units = _units(kept, graph)
    if units is not None:
        found.append(relative_error(outputs, masked_outputs(original, inputs, graph, units)))
    with contextlib.suppress(Exception), torch.no_grad():
        masked = _at_zero(original, small, kept)
        torch.manual_seed(0)
        found.append(relative_error(outputs, outputs_of(call(masked, inputs))))
    return found


def _kept(original: nn.Module, small: nn.Module) -> dict[str, list[np.ndarray]] | None:
    """Return which indices of every axis of every parameter stayed; None where values changed."""
    after, kept = dict(small.named_parameters()), {}
    for name, tensor in original.named_parameters():
        if name not in after:
            return None
        kept[name] = _positions(tensor.detach().numpy(), after[name].detach().numpy())
        if kept[name] is None:
            return None
    return kept


def _positions(before: np.ndarray, after: np.ndarray) -> Any:
    if before.ndim != after.ndim or not after.size:
        return None
    flat, rows = before.ravel(), []
    order = np.argsort(flat)
    for axis in range(before.ndim):
        line = np.moveaxis(after, axis, 0).reshape(after.shape[axis], -1)[:, 0]
        place = order[np.minimum(np.searchsorted(flat[order], line), flat.size - 1)]
        rows.append(np.unravel_index(place, before.shape)[axis])
    same = before.ndim == 0 or np.array_equal(before[np.ix_(*rows)], after)
    return rows if same else None


def _units(kept: dict[str, list[np.ndarray]], graph: Graph) -> dict[str, tuple[int, ...]] | None:
    """Return what stayed as units of groups; None where it is not made of whole units."""
    units: dict[str, tuple[int, ...]] = {}
    for group in graph.groups:
        left = set(range(group.size))
        for member in group.members:
            if member.tensor in kept:
                stays = np.zeros(len(member.units), bool)
                stays[kept[member.tensor][member.axis]] = True
                seen = np.asarray(member.units)
                left &= {u for u in range(group.size) if stays[seen == u].any()}
        if len(left) < group.size:
            units[group.name] = tuple(sorted(left))
    try:
        removed = graph.removed(units)
    except Exception:  # a group that must stay, or one without a unit left
        return None
    axes = ((key, extent) for key, extent in graph.extents.items() if key[0] in kept)
    same = all(
        np.array_equal(np.flatnonzero(extent.kept(removed)), kept[name][axis])
        for (name, axis), extent in axes
    )
    return units if same else None


def _at_zero(original: nn.Module, small: nn.Module, kept: dict[str, list[np.ndarray]]) -> nn.Module:
    """Return the original with removed weights at zero, and norms of features run on those that stay."""
    made = copy.deepcopy(original)
    for name, tensor in made.named_parameters():
        mask = torch.zeros_like(tensor)
        mask[np.ix_(*kept[name])] = 1
        tensor.mul_(mask)
    modules, others = dict(made.named_modules()), dict(small.named_modules())
    for name, rows in kept.items():
        owner = name.rpartition(".")[0]
        module, leaf = modules[owner], name.rpartition(".")[2]
        norm = "norm" in type(module).__name__.lower() and "batch" not in type(module).__name__.lower()
        if norm and leaf == "weight" and len(rows) == 1 and len(rows[0]) < modules[owner].weight.shape[0]:
            module.register_forward_hook(_on_kept(others[owner], torch.from_numpy(rows[0])))
    return made


def _on_kept(norm: nn.Module, rows: Tensor) -> Any:
    def hook(_: nn.Module, args: Any, out: Tensor) -> Tensor:
        result = torch.zeros_like(out)
        result[..., rows] = norm(args[0][..., rows])
        return result

    return hook


def table(rows: dict[str, Row], ours: dict[str, Row]) -> str:
    """Return both tools side by side as Markdown."""
    counts = Counter(row["status"] for row in rows.values())
    both = [name for name in rows if "kept" in rows[name] and "kept" in ours.get(name, {})]
    smaller = sum(ours[name]["kept"] <= rows[name]["kept"] for name in both)
    own = sum(ours.get(name, {}).get("status") == "exact" for name in rows)
    lines = [
        "# Coverage, side by side with Torch-Pruning 1.6.1", "",
        f"{len(rows)} architectures, ratio 0.5, one process each. tersor: {own} exact. Torch-Pruning: "
        + ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        + f". Where it runs, tersor keeps no more parameters on {smaller} of {len(both)}.", "",
        *(f"- **{status}**: {text}" for status, text in STATUSES.items()), "",
        "| architecture | tersor | kept | error | Torch-Pruning | kept | error | note |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    return "\n".join([*lines, *(_line(name, ours.get(name, {}), row) for name, row in rows.items())]) + "\n"


def _line(name: str, own: Row, row: Row) -> str:
    cells = [name]
    for one in (own, row):
        cells += [
            one.get("status", "not run"),
            f"{one['kept']:.0%}" if "kept" in one else "",
            f"{one['error']:.0e}" if "error" in one else "",
        ]
    return f"| {' | '.join([*cells, row.get('reason', '')])} |"


def main() -> None:
    """Run the tool on every model; write after each."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.coverage.peer", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="architectures; those in peer.txt if none is given")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds per architecture")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the last run")
    options = parser.parse_args()
    prepare()
    last, ours = RESULTS / "coverage_peer.json", json.loads((RESULTS / "coverage.json").read_text())
    rows = json.loads(last.read_text()) if last.exists() and (options.resume or options.names) else {}
    for name in options.names or [name for name in LIST if name not in rows]:
        row = limited(examine, name, options.limit)
        rows[name] = {"status": "time limit"} if "time limit" in row.get("reason", "") else row
        print(f"{name:28s} {rows[name]}", flush=True)
        last.write_text(json.dumps(rows, indent=1))
        (RESULTS / "coverage_peer.md").write_text(table(rows, ours))


if __name__ == "__main__":
    main()
