"""How close files come to their simulation: `python -m bench.quantization.fidelity [resnet20|vit|minilm|gpt]...`.

Writes bench/results/quantization_fidelity.{json,md}, a model, a kind of integers and a runtime at a time; a run that
was cut short goes on where it was. Nothing is timed, so that a busy machine does not matter.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.bases import chargpt, weights
from bench.bases import vit as bases_vit
from bench.quantization import minilm
from bench.quantization.contest import RESULTS
from bench.quantization.products import products
from examples.cifar10.data import FOLDER, read
from examples.cifar10.model import build
from tersor.exporting.export import export, open_artefact
from tersor.loading.inputs import Inputs, call, main_output, map_tensors, to_numpy
from tersor.quantization.fidelity import fidelity, repeatability, sqnr
from tersor.quantization.hardware import detect, scheme_for
from tersor.quantization.model import QuantizedModel
from tersor.quantization.quantize import quantize
from tersor.quantization.recipe import Recipe

#: Name -> (kind of integers, rescaling before them, runtimes).
KINDS = {
    "static": ("static", (), ("onnxruntime", "openvino", "executorch")),
    "static, balanced": ("static", ("balance",), ("onnxruntime", "openvino")),
    "dynamic": ("dynamic", (), ("onnxruntime",)),
    "dynamic, balanced": ("dynamic", ("balance",), ("onnxruntime",)),
    "weights of 8 bits": ("int8", (), ("onnxruntime", "openvino")),
}
TITLE = """# Files against their simulation

SQNR of the main output, in decibels, on real inputs that no range was taken from, in the optimised session of each
runtime, one thread. File: of the exported file against the simulation. Itself: of the simulation against itself, when
the values that it rounds are changed in their last bit (times 1 + 2^-23 n, n standard normal): no file can be
expected to be closer, because no runtime adds in the simulation's order. Float: of the simulation against the model
in floating point. Products: the least among the integer products of ONNX Runtime's optimised graph with a floating-
point result that read what they round themselves, each on what the file itself gave it, against the simulation's
layer on the same values.

A value that differs by d from the simulation's falls to another code with a chance of d / step, and is then a step
away. So every rounding layer takes the error half of the way, in decibels, to that of rounding itself, whatever the
kernels do; where File is near Itself the file computes what the simulation computes. Balanced: outliers of
activations were moved into weights first.

OpenVINO adds the other branch of a residual block to the sums of the convolution before it and rounds once, where ONNX
Runtime rounds the convolution, adds, and rounds again. A static file for OpenVINO is therefore made from a simulation
of its own, which leaves out the rounding between the two. With the one that ONNX Runtime needs, ResNet-20 in OpenVINO
was 38 dB from its simulation. ExecuTorch's kernels round what every layer gives, so that its simulation does too.

Linear layers are not concerned: where an addition follows, OpenVINO too writes their result in floating point, and adds
by itself. Static files for OpenVINO multiply queries and keys in integers. In brackets: least and most of Itself over
five draws of the last bits (rows without are of one draw). MiniLM has a few activations that are far larger than all
others, so that one code of theirs moves the outputs, and draws differ by decibels."""


@dataclass(frozen=True)
class Subject:
    """A trained model, what its ranges are taken from, and real inputs: several samples a call, and one."""

    model: nn.Module
    calibration: Sequence[Inputs]
    calls: Mapping[int, Sequence[Inputs]]

    @property
    def example(self) -> Inputs:
        return map_tensors(lambda tensor: tensor[:4], self.calibration[0])


@dataclass(frozen=True)
class Row:
    """What was found of one file."""

    model: str
    kind: str
    runtime: str
    samples_a_call: int
    file_db: float
    itself_db: float
    float_db: float
    products_db: float | None
    #: Least and most of `Itself` over five draws of the last bits; rows of older runs have one draw.
    itself_range_db: tuple[float, float] | None = None

    @property
    def itself(self) -> str:
        """What the simulation is from itself, in words."""
        if self.itself_range_db is None:
            return f"{self.itself_db:.1f}"
        return f"{self.itself_db:.1f} ({self.itself_range_db[0]:.1f} to {self.itself_range_db[1]:.1f})"


def _parts(tensor: Tensor) -> dict[int, list[Inputs]]:
    return {32: [(part,) for part in tensor.split(32)], 1: [(part,) for part in tensor[:32].split(1)]}


def _images() -> tuple[list[Inputs], dict[int, list[Inputs]]]:
    seen, new = (torch.from_numpy(read(f"{part}.parquet", 0, 64)[0]) for part in ("train", "test"))
    return [(part,) for part in seen.split(32)], _parts(new)


def resnet20() -> Subject:
    model = build().eval()
    model.load_state_dict(load_file(FOLDER.parent / "resnet20_cifar10.safetensors"))
    return Subject(model, *_images())


def vit() -> Subject:
    model = bases_vit.build().eval()
    model.load_state_dict(load_file(weights("vit")))
    return Subject(model, *_images())


def sst2() -> Subject:
    seen, new = (minilm.sentences(part)[0] for part in ("dev", "test"))
    rows = {32: torch.arange(64).split(32), 1: torch.arange(32).split(1)}
    calls = {size: [minilm.cut(new, part) for part in parts] for size, parts in rows.items()}
    calibration = [minilm.cut(seen, part) for part in torch.arange(64).split(32)]
    return Subject(minilm.fine_tuned(), calibration, calls)


def shakespeare() -> Subject:
    model = chargpt.build().eval()
    model.load_state_dict(load_file(weights("chargpt")))
    seen, new = (text.unfold(0, chargpt.BLOCK, chargpt.BLOCK)[:64] for text in chargpt.text())
    return Subject(model, [(part,) for part in seen.split(32)], _parts(new))


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "resnet20": resnet20, "vit": vit, "minilm": sst2, "gpt": shakespeare,
}  # fmt: skip
NAMES = {
    "resnet20": "ResNet-20, CIFAR-10", "vit": "ViT of 4 blocks, CIFAR-10", "minilm": "MiniLM, SST-2",
    "gpt": "GPT of 4 blocks, tiny Shakespeare",
}  # fmt: skip


def measure(name: str, subject: Subject, kind: str, runtime: str) -> list[Row]:
    """Quantize and export for a runtime, and compare."""
    integers, before, _ = KINDS[kind]
    scheme, recipe = scheme_for(detect(), integers, runtime), Recipe("mse", before)
    small = quantize(subject.model, subject.example, subject.calibration, scheme=scheme, recipe=recipe)
    assert isinstance(small, QuantizedModel)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        artefact = export(small, subject.example, Path(folder) / "model", runtime, check=False)
        run = open_artefact(artefact)
        for size, calls in subject.calls.items():
            draws = [repeatability(small, calls, seed=seed) for seed in range(5)]
            alone = (median(draws), _float_db(subject.model, small, calls))
            read = products(artefact, to_numpy(calls[0])) if runtime == "onnxruntime" else ()
            least = min(read, default=None)
            rows.append(
                Row(
                    name,
                    kind,
                    runtime,
                    size,
                    fidelity(small, run, calls),
                    *alone,
                    least,
                    (min(draws), max(draws)),
                )
            )
    return rows


@torch.no_grad()
def _float_db(model: nn.Module, small: nn.Module, calls: Sequence[Inputs]) -> float:
    exact, rounded = (torch.cat([main_output(call(m, c)) for c in calls]) for m in (model, small))
    return sqnr(exact.numpy(), rounded.numpy())


def write(rows: Sequence[Row]) -> None:
    record = RESULTS / "quantization_fidelity.json"
    record.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    lines = [
        TITLE, "",
        "| model | integers | runtime | samples a call | file (dB) | itself (dB) | float (dB) | products (dB) |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for r in rows:
        least = "" if r.products_db is None else f"{r.products_db:.0f}"
        lines.append(
            f"| {NAMES[r.model]} | {r.kind} | {r.runtime} | {r.samples_a_call} | {r.file_db:.1f} | {r.itself} "
            f"| {r.float_db:.1f} | {least} |"
        )
    record.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Measure what the results do not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(SUBJECTS))
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    record = RESULTS / "quantization_fidelity.json"
    for name in options.models:
        subject = None
        for kind, runtime in _files(name, options.kinds):
            rows = [Row(**row) for row in json.loads(record.read_text())] if record.exists() else []
            if not any((row.model, row.kind, row.runtime) == (name, kind, runtime) for row in rows):
                subject = subject or SUBJECTS[name]()
                write([*rows, *measure(name, subject, kind, runtime)])
                print(name, kind, runtime, flush=True)


def _files(name: str, kinds: Sequence[str]) -> list[tuple[str, str]]:
    """Return the kind of integers and the runtime of each file of a model; of a convolutional one only static."""
    suiting = [kind for kind in kinds if kind == "static" or name != "resnet20"]
    return [(kind, runtime) for kind in suiting for runtime in KINDS[kind][2]]


if __name__ == "__main__":
    main()
