"""`tersor.optimize`: a trained model, data and the drop that is allowed come in, a Result goes out."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from torch import nn

from tersor.loading.metric import Metric
from tersor.loading.model import load_model
from tersor.search.asked import ask
from tersor.search.conduct import Order, carry_out
from tersor.search.request import Options, make_request
from tersor.search.result import Result


def optimize(
    model: nn.Module | str,
    data: object = None,
    *,
    max_drop: str | float,
    metric: str | Callable[..., Any] | Metric | None = None,
    target: str | Sequence[str] = "onnxruntime",
    goal: str = "latency",
    budget: str | float | None = None,
    **options: Unpack[Options],
) -> Result:
    """Return the fastest or smallest version of `model` that still holds the accuracy you refuse to lose.

    Channels, heads and features are pruned step by step, each network is recovered by distillation from the
    original, and each gets a twin in 8-bit integers. Every candidate is exported, evaluated and measured in the
    target runtime against the original in its best free runtime. Finalists frozen on the search data are tested on
    sealed data, from the safest to the boldest; the best that passes is the answer. The model is not changed.

    Args:
        model: a module, or a reference such as `package.module:factory`.
        data: one data set (a DataLoader, a Dataset, a pair of arrays; it is split by a hash of its content), explicit
            splits as a mapping, or a reference such as `npz:digits.npz`. Without data, inputs are drawn at random, of
            the form that the model says it takes or that a reference such as `random:3x224x224` gives; then nothing is
            learnt from them, and the certificate is about such inputs only.
        max_drop: largest loss: `"1%"` is relative to the original, `0.01` is in the unit of the metric.
        metric: a name, a callable, or None to infer it from the labels.
        target: runtime that the file is for, or several, such as `("onnxruntime", "openvino")`: then one model is
            sought that holds the limit, and is better, in each. `auto` stands alone: the original is raced in
            `onnxruntime`, `openvino` and `executorch`, as far as they are installed, in floating point and in integers,
            for at most a twentieth of the budget or a minute, and the file is for the fastest one.
        goal: `latency`, `throughput`, `size` or `memory`.
        budget: time for all of it, such as `"30m"` or seconds; None takes a fixed, moderate effort.
        **options: `confidence` (0.95), `methods` (`prune`, `factorize`, `drop`, `quantize`, `weight_only`, `distill`),
            `leave` (patterns of layer names to leave alone), `threads` (1), `batch` (samples per call when measuring),
            `seed` (0), `loss`,
            `limits` (what the answer may take at most, such as `{"size": "1MB", "latency": "2ms", "memory": "50MB"}`),
            `max_candidates` (a budget in steps), `max_memory` (that making a candidate may take, such as `"4GB"`),
            `executor` (`local`, or `ray` to make candidates on a Ray cluster),
            `leave_out_copies` (of given splits, leave out samples that the sealed one holds too), `ledger` (file that
            counts the attempts on this certification data), `output` (folder that is kept up to date from the start,
            so that `tersor.resume` can go on if the process is killed), `on_event` (a listener).

    Returns:
        The Result. It is never None: when nothing better holds, it is the original, exported, with the reason.

    Raises:
        ArgumentError: if a word is not understood.
        ModelError: if the model cannot be run.
        DataError: if the data does not fit, or is too small for the margin; it says how many samples would do.
        ExportError: if the original cannot be exported for the target.

    Example:
        `tersor.optimize(model, (images, labels), max_drop="1%", budget="10m").save("out")`
    """
    request = make_request(max_drop, target, goal, budget, options)
    loaded = load_model(model)
    asked = ask(model, data, metric, request, options, budget)
    return carry_out(Order(loaded, data, metric, request, options, asked))
