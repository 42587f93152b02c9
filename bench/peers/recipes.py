"""The tools, each by its own documentation's recipe: a Work comes in, a file for a stock runtime goes out."""

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from torch import nn

from bench._events import tell
from bench.peers.piece import Samples, Work, accuracy
from bench.quantization.references import prepared
from tersor.exporting.artefact import Artefact
from tersor.exporting.executorch_runtime import lowered
from tersor.exporting.export import export, with_options
from tersor.exporting.files import sha256_of, shipped_bytes
from tersor.exporting.precision import precisions
from tersor.exporting.program import Flat, capture
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
    "float16": "only processors with AVX512-FP16 or AMX-FP16 compute in it; others widen it to float32, "
    "ONNX Runtime with a cast around each operation",
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


@recipe("OpenVINO bf16")
def openvino_bf16(work: Work, folder: Path, _seed: int) -> Made:
    if "bf16" not in precisions("openvino"):
        raise RuntimeError("this processor has no products of bfloat16")
    made = export(work.model, work.example, folder / "model.onnx", "openvino")
    return Made(with_options(made, precision="bf16"), "INFERENCE_PRECISION_HINT, weights stored in float32")


@recipe("torch.compile")
def torch_compile(work: Work, folder: Path, _seed: int) -> Made:
    return Made(export(work.model, work.example, folder / "model.pt2", "torch-compile"), "freezing")


class Reader(CalibrationDataReader):
    """Feeds calibration samples in batches."""

    def __init__(self, names: Sequence[str], samples: Samples) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = (
            dict(zip(names, part.inputs, strict=True)) for part in samples.batches(50)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def ort_static(artefact: Artefact, samples: Samples, folder: Path) -> Artefact:
    """Quantize an ONNX file: QDQ, weights per channel, activations unsigned as x86 kernels want them."""
    path = folder / "int8.onnx"
    quantize_static(
        prepared(artefact.path, folder / "ready.onnx"),
        path,
        Reader(artefact.inputs, samples),
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
    path = folder / "int8.onnx"
    quantize_dynamic(
        prepared(base.path, folder / "ready.onnx"), path, per_channel=True, weight_type=QuantType.QInt8
    )
    return Made(artefact_of(base, path), "per channel")


@recipe("ONNX Runtime int4 weights")
def onnx_runtime_int4(work: Work, folder: Path, _seed: int) -> Made:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    base = export(work.model, work.example, folder / "model.onnx")
    quantizer = MatMulNBitsQuantizer(onnx.load(base.path), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    if not any(node.op_type == "MatMulNBits" for node in quantizer.model.graph().node):
        raise RuntimeError("it takes MatMul nodes with constant weights, and there are none")
    path = folder / "int4.onnx"
    quantizer.model.save_model_to_file(str(path))
    return Made(artefact_of(base, path), "MatMulNBits, blocks of 32, symmetric, products in int8")


def as_openvino(work: Work, folder: Path) -> Any:
    """Return the network in OpenVINO, read from the ONNX file that the other tools start from as well."""
    import openvino

    model = openvino.Core().read_model(export(work.model, work.example, folder / "float.onnx").path)
    ports = zip(model.inputs, work.example, strict=True)
    model.reshape({port: openvino.PartialShape([-1, *tensor.shape[1:]]) for port, tensor in ports})
    return model


def saved_openvino(model: Any, folder: Path) -> Artefact:
    import openvino

    path = folder / "model.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    names = tuple(f"input_{index}" for index in range(len(model.inputs)))
    like = Artefact("openvino", path, 0, "", {"precision": "f32"}, names, ("output",))
    return artefact_of(like, path)


def nncf_settings(work: Work) -> dict[str, Any]:
    """Return the calibration samples one by one, and the kind of network where NNCF has a setting for it."""
    import nncf

    items = [list(part.inputs) for part in work.calibration.batches(1)]
    return {
        "calibration_dataset": nncf.Dataset(items),
        "model_type": nncf.ModelType.TRANSFORMER if work.attention else None,
    }


@recipe("NNCF int8 in OpenVINO")
def nncf_quantize(work: Work, folder: Path, _seed: int) -> Made:
    import nncf

    quantized = nncf.quantize(
        as_openvino(work, folder), subset_size=len(work.calibration), **nncf_settings(work)
    )
    return Made(saved_openvino(quantized, folder), transformer_note(work))


@recipe("NNCF with accuracy control")
def nncf_accuracy(work: Work, folder: Path, _seed: int) -> Made:
    import nncf

    parts = list(work.search.batches(1))

    def validate(model: Any, data: Any) -> float:
        output = model.output(0)
        found = [model(list(parts[i].inputs))[output].argmax() == parts[i].labels[0] for i in data]
        return float(np.mean(found))

    quantized = nncf.quantize_with_accuracy_control(
        as_openvino(work, folder),
        validation_dataset=nncf.Dataset(list(range(len(parts))), lambda index: index),
        validation_fn=validate,
        max_drop=work.margin,
        **nncf_settings(work),
    )
    note = f"max_drop={work.margin:g}, absolute, on the search samples"
    return Made(saved_openvino(quantized, folder), ", ".join(filter(None, (note, transformer_note(work)))))


def transformer_note(work: Work) -> str:
    return "model_type=TRANSFORMER" if work.attention else ""


@recipe("torchao PT2E int8 in inductor")
def torchao_pt2e(work: Work, folder: Path, _seed: int) -> Made:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    batch = tuple({0: torch.export.Dim("batch", min=1, max=4096)} for _ in work.example)
    flat = Flat(work.model, work.example).eval()
    with torch.no_grad():
        observed = prepare_pt2e(
            torch.export.export(flat, work.example, dynamic_shapes=(batch,)).module(), quantizer
        )
        for part in work.calibration.batches(50):
            observed(*part.tensors())
        graph = torch.export.export(convert_pt2e(observed), work.example, dynamic_shapes=batch)
    path = folder / "model.pt2"
    # Compiled when it is opened, `torch.compile(options={"freezing": True})` fails on its operators for integers.
    with path.open("wb") as file:
        torch._inductor.aoti_compile_and_package(
            graph, package_path=file, inductor_configs={"freezing": True}
        )
    names = tuple(f"input_{index}" for index in range(len(work.example)))
    like = Artefact("aotinductor", path, 0, "", {}, names, ("output",))
    return Made(artefact_of(like, path), "compiled ahead of time, freezing")


@recipe("ExecuTorch")
def executorch(work: Work, folder: Path, _seed: int) -> Made:
    return Made(export(work.model, work.example, folder / "model.pte", "executorch"), "XNNPACK")


@recipe("XNNPACK PT2E int8 in ExecuTorch")
def executorch_pt2e(work: Work, folder: Path, _seed: int) -> Made:
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = xnnpack.XNNPACKQuantizer()
    quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
    program = capture(work.model, work.example)
    with torch.no_grad():
        observed = prepare_pt2e(program.graph.module(), quantizer)
        for part in work.calibration.batches(50):
            observed(*part.tensors())
    path = folder / "model.pte"
    path.write_bytes(lowered(program, convert_pt2e(observed)))
    like = Artefact("executorch", path, 0, "", {}, program.inputs, program.outputs)
    return Made(artefact_of(like, path), "XNNPACKQuantizer, symmetric, per channel")


def fine_tune(model: nn.Module, work: Work, seconds: float, seed: int) -> nn.Module:
    """Train as Torch-Pruning's examples do, with cosine decay over the time at hand.

    SGD with Nesterov momentum; of attention AdamW, in bfloat16 where the processor has it, and gradients of norm 1 at
    most.
    """
    torch.manual_seed(seed)
    inputs, labels = work.train.tensors(), torch.from_numpy(work.train.labels)
    optimizer = optimizer_of(model, work)
    start, rounded = time.monotonic(), work.attention and "bf16" in precisions("torch")
    model.train()
    while (spent := (time.monotonic() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = work.lr * 0.5 * (1 + np.cos(np.pi * spent))
        rows = torch.randint(len(labels), (32 if work.attention else 64,))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            answer = model(*(array[rows] for array in inputs))
        nn.functional.cross_entropy(answer.float(), labels[rows]).backward()
        if work.attention:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def optimizer_of(model: nn.Module, work: Work) -> torch.optim.Optimizer:
    if work.attention:
        return torch.optim.AdamW(model.parameters(), lr=work.lr)
    return torch.optim.SGD(model.parameters(), lr=work.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)


def heads_of(model: nn.Module) -> dict[nn.Module, int]:
    """Return the layers whose outputs are divided into heads, and the number of heads."""
    return {
        layer: getattr(module, "heads", 0) or module.num_attention_heads
        for module in model.modules()
        for name in ("qkv", "query", "key", "value")
        if isinstance(layer := getattr(module, name, None), nn.Linear)
    }


def tell_heads(model: nn.Module) -> None:
    """Write the new size of a head where modules of transformers keep it, as Torch-Pruning's example for BERT does."""
    for module in model.modules():
        if hasattr(module, "attention_head_size"):
            module.all_head_size = module.query.out_features
            module.attention_head_size = module.all_head_size // module.num_attention_heads


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
        num_heads=heads_of(model),
    )
    if criterion == "taylor":
        some = work.train[:256]
        nn.functional.cross_entropy(model(*some.tensors()), torch.from_numpy(some.labels)).backward()
    pruner.step()
    tell_heads(model)
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
    return searched(work, folder, seed, "onnxruntime")


@recipe("tersor for OpenVINO")
def tersor_openvino(work: Work, folder: Path, seed: int) -> Made:
    return searched(work, folder, seed, "openvino")


def searched(work: Work, folder: Path, seed: int, target: str) -> Made:
    """Return tersor's answer for a runtime."""
    parts = {"train": work.train, "search": work.search, "certification": work.sealed}
    data = {part: samples.columns() for part, samples in parts.items()}
    result = optimize(
        work.model,
        data,
        max_drop=work.margin,
        target=target,
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
