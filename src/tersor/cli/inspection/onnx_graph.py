"""ONNX files: the graph is data; what can go wrong lies beside it."""

from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from tersor.cli.inspection.findings import Content, Safety, TensorEntry

_STANDARD = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training"})


def onnx_file(path: Path) -> Content:
    """Read an ONNX graph without its external weights, and check where those lie."""
    kind = "ONNX graph"
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises its own classes on damaged bytes
        reason = f"It is no readable ONNX file: {type(error).__name__}."
        return Content(kind=kind, safety=Safety.BROKEN, reasons=(reason,))
    if not model.graph.node and not model.graph.output:
        return Content(kind=kind, safety=Safety.BROKEN, reasons=("It holds no graph.",))
    faults = external_faults(model, path.parent)
    foreign = sorted({node.domain for node in model.graph.node} - _STANDARD - _functions(model))
    reasons = [*faults]
    if foreign:
        reasons.append(
            f"It uses operators of {', '.join(foreign)}, which need a native library of their own."
        )
    safety = Safety.BROKEN if faults else Safety.CODE if foreign else Safety.DATA
    return Content(
        kind=kind,
        safety=safety,
        reasons=tuple(reasons),
        facts=_facts(model),
        tensors=tuple(
            TensorEntry(t.name, onnx.TensorProto.DataType.Name(t.data_type).lower(), tuple(t.dims))
            for t in model.graph.initializer
        ),
        advice=f"tersor compare A.onnx {path.name}",
    )


def _functions(model: onnx.ModelProto) -> set[str]:
    return {function.domain for function in model.functions}


def external_faults(model: onnx.ModelProto, folder: Path) -> tuple[str, ...]:
    """Return what is wrong with the files that hold the weights of `model`, in words."""
    from onnx.external_data_helper import uses_external_data

    faults = []
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            entries = {entry.key: entry.value for entry in tensor.external_data}
            fault = _fault(entries, folder)
            if fault:
                faults.append(f"The weights of {tensor.name!r} {fault}.")
    return tuple(dict.fromkeys(faults))[:8]


def _fault(entries: dict[str, str], folder: Path) -> str:
    location = entries.get("location", "")
    windows = PureWindowsPath(location)
    if not location or windows.drive or windows.is_absolute() or PurePosixPath(location).is_absolute():
        return f"lie at {location!r}, which is no relative path"
    if ".." in windows.parts:
        return f"lie at {location!r}, outside of the model's folder"
    file = folder / location
    if not file.is_file():
        return f"lie in {location!r}, which is missing"
    if file.is_symlink() or not file.resolve().is_relative_to(folder.resolve()):
        return f"lie behind the link {location!r}"
    state = file.stat()
    if state.st_nlink > 1:
        return f"lie in {location!r}, which has a second name on this disk (a hard link)"
    start, length = (int(entries.get(key) or 0) for key in ("offset", "length"))
    if start < 0 or length < 0 or start + length > state.st_size:
        return f"reach beyond the end of {location!r}"
    return ""


def _facts(model: onnx.ModelProto) -> dict[str, str]:
    counts = Counter(f"{node.domain + '.' if node.domain else ''}{node.op_type}" for node in model.graph.node)
    weights = {tensor.name for tensor in model.graph.initializer}
    parameters = sum(_product(tensor.dims) for tensor in model.graph.initializer)
    facts = {
        "opset": ", ".join(f"{o.domain or 'ai.onnx'} {o.version}" for o in model.opset_import),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "inputs": "; ".join(_value(v) for v in model.graph.input if v.name not in weights),
        "outputs": "; ".join(_value(v) for v in model.graph.output),
        "parameters": f"{parameters:,}",
        "operators": ", ".join(f"{name} {count}" for name, count in counts.most_common(24)),
    }
    return {name: value for name, value in facts.items() if value}


def _value(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    axes = [axis.dim_param or str(axis.dim_value) if axis.ByteSize() else "?" for axis in kind.shape.dim]
    return f"{value.name} {onnx.TensorProto.DataType.Name(kind.elem_type).lower()}[{', '.join(axes)}]"


def _product(sizes) -> int:
    total = 1
    for size in sizes:
        total *= size
    return total
