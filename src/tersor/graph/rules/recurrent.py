"""Recurrent layers in one operation: the rows of every gate share the cells of the hidden units.

Where a layer is not fused it runs as products, chunks and sigmoids, and needs no rule of its own.
"""

from torch import Tensor

from tersor.graph.cells import Axis
from tersor.graph.labels import Call, Labels
from tersor.graph.rules.registry import rule

MEETS = "meets a recurrent layer that cannot change"


@rule("mkldnn_rnn_layer")
def fused_layer(labels: Labels, call: Call) -> None:
    """One layer in one direction: weights (gates x hidden, input) and (gates x hidden, hidden), and biases."""
    source, size = call["input"], int(call["hidden_size"])
    labels.contract(labels.of(source)[-1], labels.of(call["weight0"])[1], MEETS)
    hidden = labels.of(call["weight1"])[1]
    weights = [call[name] for name in ("weight0", "weight1", "weight2", "weight3")]
    for weight in weights:
        if weight.dim() and weight.numel():
            hidden = labels.unify(hidden, _gates(labels, weight, size), MEETS)
    labels.contract(hidden, labels.of(call["weight1"])[1], MEETS)
    for state in (call["hx_"], call["cx_"]):
        if isinstance(state, Tensor) and state.numel():
            hidden = labels.unify(hidden, labels.of(state)[-1], MEETS)
    labels.mark(hidden, "recurrent hidden")
    for i, out in enumerate(call.outputs):
        batch = labels.of(source)[:-1] if i == 0 else [[] for _ in range(out.dim() - 1)]
        labels.put(out, [*batch, hidden]) if out.dim() else labels.put_fixed(out)


def _gates(labels: Labels, weight: Tensor, hidden: int) -> Axis:
    """Unite the rows of all gates; return the axis of the hidden units."""
    rows = int(weight.shape[0])
    return labels.reshape([labels.of(weight)[0]], [rows], [rows // hidden, hidden], [True, False])[1]
