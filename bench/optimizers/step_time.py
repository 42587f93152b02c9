"""Time of one optimizer step: ours against torch's default loop, in the same process, interleaved.

    python -m bench.optimizers.step_time [--out bench/results]

One thread. Each entry is the fastest of rounds in which all variants of an algorithm take turns, because the
machine may be shared: other work only ever adds time. Results of other machines stay beside those of this one.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from tersor.measurement.machine import this_machine
from tersor.optimizers import single_pass
from tersor.optimizers.muon import orthogonalize
from tersor.optimizers.registry import make_optimizer

#: A small GPT (10.7 M entries in 50 tensors) and ResNet-56 (0.85 M in 165).
NETWORKS = {
    "gpt 10.7M": [(65, 384), (256, 384)]
    + 6 * [(1152, 384), (384, 384), (1536, 384), (384, 1536)]
    + 24 * [(384,)],
    "resnet56 0.85M": 19 * [(16, 16, 3, 3)] + 18 * [(32, 32, 3, 3)] + 18 * [(64, 64, 3, 3)] + 110 * [(32,)],
}


class LoopLion(torch.optim.Optimizer):
    """Lion as it is usually written: one operation after another, one tensor after another."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if not self.state[p]:
                    self.state[p]["m"] = torch.zeros_like(p)
                m = self.state[p]["m"]
                p.mul_(1 - group["lr"] * 0.01)
                update = m.clone().mul_(0.9).add_(p.grad, alpha=0.1).sign_()
                p.add_(update, alpha=-group["lr"])
                m.mul_(0.99).add_(p.grad, alpha=0.01)


VARIANTS: dict[str, tuple[Callable, Callable]] = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=1e-4, momentum=0.9), lambda p: make_optimizer("sgd", p, lr=1e-4)),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=1e-4), lambda p: make_optimizer("adamw", p, lr=1e-4)),
    "adagrad": (lambda p: torch.optim.Adagrad(p, lr=1e-4), lambda p: make_optimizer("adagrad", p, lr=1e-4)),
    "rmsprop": (lambda p: torch.optim.RMSprop(p, lr=1e-4), lambda p: make_optimizer("rmsprop", p, lr=1e-4)),
    "rmsprop momentum": (
        lambda p: torch.optim.RMSprop(p, lr=1e-4, momentum=0.9),
        lambda p: make_optimizer("rmsprop", p, lr=1e-4, momentum=0.9),
    ),
    "nadamw": (
        lambda p: torch.optim.NAdam(p, lr=1e-4, weight_decay=0.01, decoupled_weight_decay=True),
        lambda p: make_optimizer("nadamw", p, lr=1e-4),
    ),
    "lion": (lambda p: LoopLion(p, 1e-4), lambda p: make_optimizer("lion", p, lr=1e-4, weight_decay=0.01)),
}


def parameters(shapes) -> list[nn.Parameter]:
    made = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in made:
        p.grad = torch.randn_like(p)
    return made


def timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compiled(step: Callable[[], object]) -> Callable[[], object]:
    def run():
        usual, single_pass.WORTH_COMPILING = single_pass.WORTH_COMPILING, 0
        step()
        single_pass.WORTH_COMPILING = usual

    return run


def measure(shapes, name: str, rounds: int) -> dict[str, float]:
    torchs, own = VARIANTS[name]
    steps = {"torch": torchs(parameters(shapes)).step, "own": own(parameters(shapes)).step}
    again = own(parameters(shapes))
    if isinstance(again, single_pass.SinglePass):
        steps["compiled"] = compiled(again.step)
    for step in steps.values():
        step()
        step()
    times = {variant: [] for variant in steps}
    for _ in range(rounds):
        for variant, step in steps.items():
            times[variant].append(timed(step))
    entries = sum(p.numel() for p in parameters(shapes))
    return {f"{variant}_ns_per_entry": min(t) / entries * 1e9 for variant, t in times.items()}


def newton_schulz(shape: tuple[int, int], rounds: int = 3) -> dict[str, float]:
    matrix = torch.randn(shape)

    def bf16(x: Tensor) -> Tensor:
        return orthogonalize_in(x.bfloat16())

    def orthogonalize_in(x: Tensor) -> Tensor:
        """What torch.optim.Muon runs."""
        x = x.T if x.shape[0] > x.shape[1] else x
        x = x / x.norm()
        for _ in range(5):
            gram = x @ x.T
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
        return x

    bf16(matrix), orthogonalize(matrix)
    pairs = [(timed(lambda: bf16(matrix)), timed(lambda: orthogonalize(matrix))) for _ in range(rounds)]
    return {
        "torch_bf16_ms": min(a for a, _ in pairs) * 1e3,
        "own_fp32_ms": min(b for _, b in pairs) * 1e3,
    }


def table(results: dict) -> str:
    """Return the results of all machines as Markdown."""
    lines = [
        "# Time of one optimizer step",
        "",
        "`python -m bench.optimizers.step_time`: ns per parameter entry, one thread; fastest of interleaved rounds.",
    ]
    for name, found in results.items():
        lines += ["", f"## {name}", "", found["setting"], "", *_steps(found["steps"]), ""]
        lines += _orthogonalisation(found["newton_schulz"]) + limits(found["steps"]["gpt 10.7M"])
    return "\n".join(lines) + "\n"


def _steps(networks: dict) -> list[str]:
    lines = ["| network | optimizer | torch default | ours | ours compiled | ratio | ratio compiled |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for network, rows in networks.items():
        for name, row in rows.items():
            t, own = row["torch_ns_per_entry"], row["own_ns_per_entry"]
            fast = row.get("compiled_ns_per_entry")
            tail = f"{fast:.2f} | {t / own:.1f} | {t / fast:.1f}" if fast else f"- | {t / own:.1f} | -"
            lines.append(f"| {network} | {name} | {t:.2f} | {own:.2f} | {tail} |")
    return lines


def _orthogonalisation(shapes: dict) -> list[str]:
    lines = ["| orthogonalisation, 5 steps | bfloat16 (torch.optim.Muon) | float32 (ours) | ratio |"]
    lines += ["|---|---|---|---|"]
    for shape, row in shapes.items():
        a, b = row["torch_bf16_ms"], row["own_fp32_ms"]
        lines.append(f"| {shape} | {a:.0f} ms | {b:.0f} ms | {a / b:.1f} |")
    return lines


#: Bytes that a step must move for each float32 entry: every array read, and written where it changes.
BYTES = {
    "sgd": 20, "adamw": 28, "adagrad": 20, "rmsprop": 20, "rmsprop momentum": 28, "nadamw": 28, "lion": 20,
}  # fmt: skip


def limits(rows: dict) -> list[str]:
    """Say how far each step is from the memory's rate, and what that means for Lion."""
    rates = {
        name: BYTES[name] / min(row["own_ns_per_entry"], row.get("compiled_ns_per_entry", 1e9))
        for name, row in rows.items()
    }
    needed = BYTES["lion"] / (rows["lion"]["torch_ns_per_entry"] / 4)
    return [
        "",
        "A step on 10.7M entries is bound by memory. Bytes it must move over the fastest time above: "
        + ", ".join(f"{name} {rate:.0f} GB/s" for name, rate in rates.items())
        + f". Four times torch's default would take {needed:.0f} GB/s for Lion: torch's loop over Lion is short. "
        "RMSprop with momentum and Lion are compiled only once a run is long enough to repay 10 s of compiling; "
        "before, they run in blocks that stay in the cache. Where a processor multiplies bfloat16 in hardware, "
        "torch's orthogonalisation is the faster one; elsewhere ours is, and it keeps three more digits everywhere.",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results")
    parser.add_argument("--rounds", type=int, default=25)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = arguments.out / "optimizer_step_time.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    machine = this_machine()
    units = "with" if any("bf16" in feature for feature in machine.features) else "without"
    capability = torch.backends.cpu.get_cpu_capability()
    results[machine.processor] = {
        "setting": f"{capability}, {units} bfloat16 units; torch {torch.__version__}, one thread.",
        "steps": {
            network: {name: measure(shapes, name, arguments.rounds) for name in VARIANTS}
            for network, shapes in NETWORKS.items()
        },
        "newton_schulz": {f"{a}x{b}": newton_schulz((a, b)) for a, b in ((384, 384), (1536, 384))},
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=1) + "\n")
    file.with_suffix(".md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
