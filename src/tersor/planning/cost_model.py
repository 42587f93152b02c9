"""The latency of a whole model as a function of its plan, fitted to measured whole models.

Latencies of single layers do not add up to that of the model, so no layer is timed alone: every coefficient is
fitted to whole models, starting from what multiply-adds and memory traffic usually cost.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tersor.errors import MeasurementError
from tersor.planning.anatomy import PADDINGS, Anatomy, Layer, Left, runs_in

#: What a processor of today usually takes, in seconds, before anything is measured: for a multiply-add, an output
#: value and a layer, in floating point and in integers; and for a value that changes its precision.
_PRIOR = {"float": (4e-11, 2e-10, 1e-6), "integer": (1.5e-11, 2e-10, 2.5e-6)}
_PRIOR_BOUNDARY, _PRIOR_CONSTANT = 5e-10, 5e-6
#: How far a layer may be from the others of its kind, relative to the prior of its kind.
_OWN = 0.5
#: Strengths of the pull towards the prior that are tried.
_STRENGTHS = (1e-4, 1e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
#: Fewest measured models for which a held-out error is told.
_LEAST = 4

#: Amount of each thing that takes time, by name.
Features = Mapping[str, float]


def features(anatomy: Anatomy, left: Left, precision: str) -> dict[str, float]:
    """Return what a model does, in amounts that each take a time of their own.

    For each kind of layer in each precision its multiply-adds (plain, and with channels padded to 8 and to 16), output
    values and number; the multiply-adds of each layer; the values that change precision between neighbours; one.

    Args:
        anatomy: the layers.
        left: what is left of each unit.
        precision: of the layers that can run in it: `float`, `static`, `dynamic`, `int8` or `int4`.
    """
    found: dict[str, float] = {"constant": 1.0}
    before = "float"
    for layer in anatomy.layers:
        own = layer_features(layer, left, precision)
        if not own:
            continue
        for name, amount in own.items():
            found[name] = found.get(name, 0.0) + amount
        now = precision if runs_in(layer, precision) else "float"
        if now != before:
            found["boundary"] = found.get("boundary", 0.0) + layer.outputs * layer.written(left.kept)
        before = now
    return found


def priced(model: "CostModel", anatomy: Anatomy, precision: str) -> Callable[[Left], float]:
    """Return `model(features(anatomy, left, precision))` as a function of `left`, quick where few layers differ.

    What each layer takes is computed once for each state that it is in.
    """
    states: list[dict[tuple[object, ...], _State]] = [{} for _ in anatomy.layers]
    groups = [tuple(layer.groups) for layer in anatomy.layers]
    constant, boundary = model({"constant": 1.0}), model.time_of("boundary")

    def price(left: Left) -> float:
        seconds, before = constant, "float"
        for layer, own, known in zip(anatomy.layers, groups, states, strict=True):
            gone = any(layer.inside(block) for block in left.dropped)
            key = (*(left.kept.get(group) for group in own), left.ranks.get(layer.name), gone)
            state = known.get(key) or known.setdefault(key, _state(model, layer, left, precision))
            if state.runs_in:
                seconds += state.seconds + boundary * state.values * (state.runs_in != before)
                before = state.runs_in
        return seconds

    return price


@dataclass(frozen=True, slots=True)
class _State:
    """What a layer takes as it is left, the values that it writes, and its precision; empty if it is gone."""

    seconds: float = 0.0
    values: float = 0.0
    runs_in: str = ""


def _state(model: "CostModel", layer: Layer, left: Left, precision: str) -> _State:
    amounts = layer_features(layer, left, precision)
    if not amounts:
        return _State()
    now = precision if runs_in(layer, precision) else "float"
    return _State(model(amounts), layer.outputs * layer.written(left.kept), now)


def layer_features(layer: Layer, left: Left, precision: str) -> dict[str, float]:
    """Return the amounts of one layer; empty if it is gone."""
    macs, *padded = layer.work(left)
    if not macs:
        return {}
    kind = f"{precision if runs_in(layer, precision) else 'float'}.{layer.kind}"
    outputs = layer.outputs * layer.written(left.kept) if layer.rows else float(layer.outputs)
    pieces = 1.0
    if rank := left.ranks.get(layer.name, 0):
        # What the first factor writes, the second reads.
        outputs, pieces = outputs + rank * layer.outputs / layer.rows, 2.0
    amounts = {f"{kind}.macs": macs, f"{kind}.outputs": outputs, f"{kind}.layers": pieces}
    amounts |= {f"{kind}.macs{width}": work for width, work in zip(PADDINGS, padded, strict=True)}
    return amounts | {f"{kind.partition('.')[0]}@{layer.name}": padded[0]}


def prior(name: str) -> float:
    """Return the usual time of one unit of a feature, in seconds; of the paddings, one third each."""
    if name == "constant":
        return _PRIOR_CONSTANT
    if name == "boundary":
        return _PRIOR_BOUNDARY
    precision = name.partition(".")[0].partition("@")[0]
    mac, output, layer = _PRIOR["integer" if precision in ("static", "dynamic") else "float"]
    if "@" in name:
        return 0.0
    kind = name.rpartition(".")[2]
    return {"outputs": output, "layers": layer}.get(kind, mac / 3)


@dataclass(frozen=True)
class CostModel:
    """A linear model of the latency of a whole network.

    Attributes:
        times: seconds for one unit of each feature; others take their prior, scaled.
        scale: how fast this machine is against the prior.
        error: median relative error on measured models that were held out; None before there are enough.
        measured: models that it was fitted to.
    """

    times: Features
    scale: float = 1.0
    error: float | None = None
    measured: int = 0

    def __call__(self, amounts: Features) -> float:
        """Return the predicted latency, in seconds.

        Example:
            >>> CostModel({"constant": 1e-5, "float.linear.macs": 1e-9})({"constant": 1.0, "float.linear.macs": 1e4})
            2e-05
        """
        return sum(amount * self.time_of(name) for name, amount in amounts.items())

    def time_of(self, name: str) -> float:
        """Return the time of one unit of a feature, in seconds."""
        found = self.times.get(name)
        return self.scale * prior(name) if found is None else found

    @property
    def margin(self) -> float:
        """Factor by which a prediction is raised to be safe: one plus the held-out error, 10 per cent if unknown."""
        return 1.0 + (0.1 if self.error is None else min(self.error, 0.5))


def fit(rows: Sequence[Features], seconds: Sequence[float]) -> CostModel:
    r"""Fit a cost model to measured whole models: ridge regression towards the prior, no time negative.

    $$\min_{w \ge 0} \sum_i \Bigl(\frac{x_i^T w - t_i}{t_i}\Bigr)^2
      + \lambda \sum_j \Bigl(\frac{w_j - s p_j}{\sigma_j}\Bigr)^2$$

    with the prior p scaled by s to the first measured models; $\sigma_j$ is the prior itself, and for the terms of
    single layers a part of that of their kind. $\lambda$ is the one of least error on models held out in turn.

    Args:
        rows: features of each model.
        seconds: their measured latencies.

    Raises:
        MeasurementError: if there is no measured model, or a latency is not positive.

    Example:
        >>> rows = [{"constant": 1.0, "float.linear.macs": 1e6 * n} for n in range(1, 8)]
        >>> model = fit(rows, [1e-5 + 1e-4 * n for n in range(1, 8)])
        >>> model.error < 0.02, round(model({"constant": 1.0, "float.linear.macs": 1e7}), 5)
        (True, 0.00101)

    Source:
        Hoerl and Kennard, Ridge regression, Technometrics 12(1), 1970; Lawson and Hanson, Solving Least Squares
        Problems, 1974, chapter 23 (non-negativity).
    """
    if not rows or min(seconds) <= 0:
        raise MeasurementError("A cost model needs at least one measured model, and positive latencies.")
    names = sorted({name for row in rows for name in row})
    design = np.array([[row.get(name, 0.0) for name in names] for row in rows])
    taken = np.asarray(seconds, float)
    strengths = _STRENGTHS if len(rows) >= _LEAST else _STRENGTHS[-1:]
    errors = [_held_out(design, taken, names, strength) for strength in strengths]
    best = min(range(len(errors)), key=lambda index: errors[index])
    model = _solve(design, taken, names, strengths[best])
    return replace(model, error=errors[best] if len(rows) >= _LEAST else None, measured=len(rows))


def _held_out(design: np.ndarray, taken: np.ndarray, names: Sequence[str], strength: float) -> float:
    """Return the median relative error on parts that the model was not fitted to."""
    if len(taken) < _LEAST:
        return float("inf")
    parts = min(len(taken), 8)
    errors = np.zeros(len(taken))
    for part in range(parts):
        out = np.arange(len(taken)) % parts == part
        model = _solve(design[~out], taken[~out], names, strength)
        weights = np.array([model.time_of(name) for name in names])
        errors[out] = np.abs(design[out] @ weights / taken[out] - 1.0)
    return float(np.median(errors))


def _solve(design: np.ndarray, taken: np.ndarray, names: Sequence[str], strength: float) -> CostModel:
    from scipy.optimize import nnls

    usual = np.array([prior(name) for name in names])
    scale = float(np.median(taken / np.maximum(design @ usual, 1e-12)))
    spread = scale * np.array([_spread(name) for name in names])
    # In units of the spread every coefficient is of order one.
    rows = design * spread / taken[:, None]
    pull = np.sqrt(strength) * np.eye(len(names))
    start = np.divide(scale * usual, spread)
    found, _ = nnls(np.vstack([rows, pull]), np.concatenate([np.ones(len(taken)), np.sqrt(strength) * start]))
    return CostModel(dict(zip(names, (found * spread).tolist(), strict=True)), scale)


def _spread(name: str) -> float:
    """Return how far a coefficient may be from its prior."""
    if "@" not in name:
        return prior(name)
    return _OWN * 3 * prior(f"{name.partition('@')[0]}.layer.macs")
