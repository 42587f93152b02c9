"""The kinds of integers that are worth timing for one model in one runtime, most promising first."""

from torch import fx, nn

from tersor._check import one_of
from tersor.loading.inputs import Inputs
from tersor.quantization.capture import capture, get_tensor, operands
from tersor.quantization.placement import EVERY_LAYER, candidates

#: Runtime -> the kinds of schemes that it has fast kernels for.
KERNELS: dict[str, tuple[str, ...]] = {
    "onnxruntime": ("static", "dynamic", "int8", "int4"),
    "openvino": ("static", "int8", "int4"),
    "executorch": ("static",),
}


def schemes(model: nn.Module, inputs: Inputs, runtime: str = "onnxruntime") -> tuple[str, ...]:
    """Return the kinds of schemes worth trying for `model`, most promising first; `quantize` takes each as `scheme`.

    Static ranges come first where at least half of the layers are convolutions, dynamic ones elsewhere. Ranges taken
    at run time and weights alone are on the list where linear layers are the majority or hold half of the weights.
    Which one is fastest depends on shapes and processor: export and time them.

    Args:
        model: the trained model; not changed.
        inputs: example inputs.
        runtime: where the file will run; one without integer kernels of its own gives an empty list.

    Returns:
        Names among `static`, `dynamic`, `int8`, `int4`; empty if the model has no layer to quantize.

    Raises:
        ModelError: if `torch.export` does not accept the model.
        ArgumentError: if the runtime is unknown.

    Example:
        >>> import torch
        >>> schemes(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), (torch.randn(2, 3, 8, 8),))
        ('static',)
        >>> schemes(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), (torch.randn(2, 4),))
        ('dynamic', 'static', 'int8', 'int4')
    """
    kernels = KERNELS.get(one_of("runtime", runtime, (*KERNELS, "torch", "torch-compile", "aotinductor")), ())
    return tuple(kind for kind in ranked(capture(model, inputs)) if kind in kernels)


def ranked(graph_module: fx.GraphModule) -> tuple[str, ...]:
    """Return the kinds of schemes that fit a captured graph, most promising first."""
    graph = graph_module.graph
    layers, convolutions = candidates(graph, EVERY_LAYER), candidates(graph, EVERY_LAYER, closed=True)
    if not layers:
        return ()
    mostly_linear = 2 * len(convolutions) < len(layers)
    weights = {node: _weights(graph_module, node) for node in layers}
    linear = sum(count for node, count in weights.items() if node not in convolutions)
    if not mostly_linear and 2 * linear < sum(weights.values()):
        return ("static",)
    return (*(("dynamic", "static") if mostly_linear else ("static", "dynamic")), "int8", "int4")


def _weights(graph_module: fx.GraphModule, node: fx.Node) -> int:
    return get_tensor(graph_module, str(operands(node)[1].target)).numel()
