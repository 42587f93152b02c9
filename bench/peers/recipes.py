"""The tools, each by its own documentation's recipe: a Work comes in, a file for a stock runtime goes out."""

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from bench._events import tell
from bench.peers.work import Work, accuracy
from tersor.exporting.artefact import Artefact
from tersor.exporting.export import export
from tersor.exporting.files import sha256_of, shipped_bytes
from tersor.search.optimize import optimize


@dataclass(frozen=True)
class Made:
    """A file, and what there is to say about its making."""

    artefact: Artefact
    note: str = ""


Recipe = Callable[[Work, Path, int], Made]
RECIPES: dict[str, Recipe] = {}
#: Tools that cannot be run here, and why.
LEFT_OUT = {
    "Olive 0.13.0": "its passes for such models are ONNX Runtime's quantizers, which are in the table",
    "NVIDIA ModelOpt 0.47.0": "FastNAS and its ONNX quantizer are for NVIDIA GPUs and TensorRT; there is none here",
    "comprexx 0.3.0": "its structured pruning zeroes channels without removing them, so no runtime gets faster",
    "torchdistill 1.1.4": "runs experiments from YAML with its own data loaders; its KD loss is compared in "
    "`bench.distillation`",
    "Intel Neural Compressor 3.10": "no longer writes ONNX or another file that a stock CPU runtime opens",
}


def recipe(name: str) -> Callable[[Recipe], Recipe]:
    """Register a recipe under a name."""

    def register(function: Recipe) -> Recipe:
        RECIPES[name] = function
        return function

    return register


def artefact_of(like: Artefact, path: Path, runtime: str = "", **options: object) -> Artefact:
    """Return a file of another tool as an artefact with the inputs and outputs of `like`."""
    beside = path.with_suffix(".bin")
    size = shipped_bytes(path) + (beside.stat().st_size if beside.exists() else 0)
    return Artefact(
        runtime or like.runtime,
        path,
        size,
        sha256_of(path),
        options or like.options,
        like.inputs,
        like.outputs,
    )


@recipe("ONNX Runtime")
def onnx_runtime(work: Work, folder: Path, _seed: int) -> Made:
    return Made(export(work.model, work.example, folder / "model.onnx"))


@recipe("OpenVINO")
def openvino(work: Work, folder: Path, _seed: int) -> Made:
    return Made(export(work.model, work.example, folder / "model.onnx", "openvino"))


@recipe("torch.compile")
def torch_compile(work: Work, folder: Path, _seed: int) -> Made:
    return Made(export(work.model, work.example, folder / "model.pt2", "torch-compile"), "freezing")


class Reader(CalibrationDataReader):
    """Feeds calibration samples in batches."""

    def __init__(self, name: str, samples: np.ndarray) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [{name: samples[start : start + 50]} for start in range(0, len(samples), 50)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def ort_static(artefact: Artefact, samples: np.ndarray, folder: Path) -> Artefact:
    """Quantize an ONNX file: QDQ, weights per channel, activations unsigned as x86 kernels want them."""
    ready, path = folder / "ready.onnx", folder / "int8.onnx"
    quant_pre_process(artefact.path, ready)
    quantize_static(
        ready,
        path,
        Reader(artefact.inputs[0], samples),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return artefact_of(artefact, path)


@recipe("ONNX Runtime static int8")
def onnx_runtime_static(work: Work, folder: Path, _seed: int) -> Made:
    base = export(work.model, work.example, folder / "model.onnx")
    return Made(ort_static(base, work.calibration, folder), "QDQ, per channel, U8S8, min-max")


@recipe("ONNX Runtime dynamic int8")
def onnx_runtime_dynamic(work: Work, folder: Path, _seed: int) -> Made:
    base = export(work.model, work.example, folder / "model.onnx")
    ready, path = folder / "ready.onnx", folder / "int8.onnx"
    quant_pre_process(base.path, ready)
    quantize_dynamic(ready, path, per_channel=True, weight_type=QuantType.QInt8)
    return Made(artefact_of(base, path), "per channel")


def as_openvino(model: nn.Module, work: Work) -> Any:
    import openvino

    return openvino.convert_model(
        model, example_input=work.example[0], input=[[-1, *work.example[0].shape[1:]]]
    )


def saved_openvino(model: Any, folder: Path) -> Artefact:
    import openvino

    path = folder / "model.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    like = Artefact("openvino", path, 0, "", {"precision": "f32"}, ("input",), ("output",))
    return artefact_of(like, path)


@recipe("NNCF int8 in OpenVINO")
def nncf_quantize(work: Work, folder: Path, _seed: int) -> Made:
    import nncf

    data = nncf.Dataset([work.calibration[i : i + 1] for i in range(len(work.calibration))])
    quantized = nncf.quantize(as_openvino(work.model, work), data, subset_size=len(work.calibration))
    return Made(saved_openvino(quantized, folder))


@recipe("NNCF with accuracy control")
def nncf_accuracy(work: Work, folder: Path, _seed: int) -> Made:
    import nncf

    images, labels = work.search

    def validate(model: Any, data: Any) -> float:
        output = model.output(0)
        found = [int(np.argmax(model(images[i : i + 1])[output])) == labels[i] for i in data]
        return float(np.mean(found))

    quantized = nncf.quantize_with_accuracy_control(
        as_openvino(work.model, work),
        nncf.Dataset([work.calibration[i : i + 1] for i in range(len(work.calibration))]),
        nncf.Dataset(list(range(len(images))), lambda index: index),
        validate,
        max_drop=work.margin,
    )
    return Made(
        saved_openvino(quantized, folder), f"max_drop={work.margin:g}, absolute, on the search samples"
    )


@recipe("torchao PT2E int8 in inductor")
def torchao_pt2e(work: Work, folder: Path, _seed: int) -> Made:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    batch = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    with torch.no_grad():
        prepared = prepare_pt2e(
            torch.export.export(work.model, work.example, dynamic_shapes=batch).module(), quantizer
        )
        for part in torch.from_numpy(work.calibration).split(50):
            prepared(part)
        graph = torch.export.export(convert_pt2e(prepared), work.example, dynamic_shapes=batch)
    path = folder / "model.pt2"
    with path.open("wb") as file:
        torch.export.save(graph, file)
    like = Artefact("torch-compile", path, 0, "", {}, ("input",), ("output",))
    return Made(artefact_of(like, path), "freezing")


def fine_tune(model: nn.Module, work: Work, seconds: float, seed: int) -> nn.Module:
    """Train as Torch-Pruning's examples do: SGD with Nesterov momentum; cosine decay over the time at hand."""
    torch.manual_seed(seed)
    images, labels = torch.from_numpy(work.train[0]), torch.from_numpy(work.train[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    start = time.monotonic()
    model.train()
    while (spent := (time.monotonic() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * 0.5 * (1 + np.cos(np.pi * spent))
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    return model.eval()


def thinned(work: Work, ratio: float, criterion: str) -> nn.Module:
    """Remove channels with Torch-Pruning: `local` cuts each layer alike by magnitude, `global` ranks by Taylor."""
    import torch_pruning as tp

    model = copy.deepcopy(work.model)
    importance = (
        tp.importance.TaylorImportance() if criterion == "taylor" else tp.importance.MagnitudeImportance(p=2)
    )
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = tp.pruner.BasePruner(
        model,
        work.example,
        importance=importance,
        global_pruning=criterion == "taylor",
        pruning_ratio=ratio,
        ignored_layers=[last],
    )
    if criterion == "taylor":
        images, labels = (torch.from_numpy(array[:256]) for array in work.train)
        nn.functional.cross_entropy(model(images), labels).backward()
    pruner.step()
    model.zero_grad()
    return model


def expert(work: Work, criterion: str, seed: int) -> tuple[nn.Module, str]:
    """Prune and fine-tune at three ratios in the time at hand; return the smallest network within the margin."""
    floor = accuracy(work.model, work.search) - work.margin
    tried: list[tuple[float, float, nn.Module]] = []
    ratios = (0.3, 0.5, 0.7)
    for ratio in ratios:
        made = fine_tune(thinned(work, ratio, criterion), work, work.budget_s / len(ratios), seed)
        tried.append((ratio, accuracy(made, work.search), made))
    able = [entry for entry in tried if entry[1] >= floor]
    ratio, _, model = able[-1] if able else max(tried, key=lambda entry: entry[1])
    return model, f"ratio {ratio:g} of {', '.join(map(str, ratios))}" + (
        "" if able else ", none within the margin"
    )


def prune_recipe(criterion: str, integers: bool) -> Recipe:
    def make(work: Work, folder: Path, seed: int) -> Made:
        stored = folder.parent / f"thinned-{criterion}.pt"
        if stored.exists():
            model, note = torch.load(stored, weights_only=False)
        else:
            model, note = expert(work, criterion, seed)
            torch.save((model, note), stored)
        base = export(model, work.example, folder / "model.onnx")
        return Made(ort_static(base, work.calibration, folder) if integers else base, note)

    return make


RECIPES["Torch-Pruning local magnitude + fine-tuning"] = prune_recipe("magnitude", integers=False)
RECIPES["Torch-Pruning global Taylor + fine-tuning"] = prune_recipe("taylor", integers=False)
RECIPES["Torch-Pruning global Taylor + ORT static int8"] = prune_recipe("taylor", integers=True)


@recipe("tersor")
def tersor(work: Work, folder: Path, seed: int) -> Made:
    data = {"train": work.train, "search": work.search, "certification": work.sealed}
    result = optimize(
        work.model,
        data,
        max_drop=work.margin,
        budget=work.budget_s,
        seed=seed,
        ledger=folder / "ledger.jsonl",
        on_event=tell,
    )
    path = folder / "answer.onnx"
    path.write_bytes(result.artefact.path.read_bytes())
    beside = result.artefact.path.with_name(result.artefact.path.name + ".data")
    if beside.exists():
        (folder / beside.name).write_bytes(beside.read_bytes())
    return Made(artefact_of(result.artefact, path), f"{result.answer.name}; {result.outcome.name}")
