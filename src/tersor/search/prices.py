"""What a design would cost at the goal: a predicted latency, learned as files are measured, or exact bytes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from tersor.errors import MeasurementError
from tersor.exporting.artefact import Artefact
from tersor.measurement.measure import measure_all
from tersor.planning.anatomy import Anatomy, Left
from tersor.planning.cost_model import CostModel, Features, features, fit, priced
from tersor.planning.space import Design, Space
from tersor.search.run import Run

#: Seconds for which one file is timed, in one fresh process, when the cost model learns from it.
_GLANCE_S = 0.3
#: Goals that are a matter of bytes.
BYTES = ("size", "memory")
#: Bytes that a second factor of a layer adds to a file beside its numbers: a node and names.
_NODE = 200.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A measured whole model."""

    amounts: Features
    seconds: float


@dataclass(frozen=True)
class Prices:
    """Prices of designs.

    Attributes:
        goal: of the search.
        seen: measured models.
        model: what they taught; None for goals that need no measurement, and before the first one.
        base_s: latency of the base, which ties measurements of different times together.
        beside: bytes of a file beside the parameters, by precision, as the files at hand show them.
    """

    goal: str
    seen: tuple[Seen, ...] = ()
    model: CostModel | None = None
    base_s: float = 0.0
    beside: Mapping[str, float] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        """Whether prices are latencies."""
        return self.goal not in BYTES

    @property
    def error(self) -> float:
        """Relative error of the prices on models held out; 0 where they are exact, or none was held out."""
        return (self.model.error or 0.0) if self.timed and self.model is not None else 0.0

    def of(self, anatomy: Anatomy, left: Left, precision: str) -> float:
        """Return the price of what is left of a network in a precision: seconds or bytes."""
        if not self.timed:
            return anatomy.bytes(left, precision) + self.beside.get(precision, 0.0) + _NODE * len(left.ranks)
        return (self.model or CostModel({}))(features(anatomy, left, precision))

    def on(self, space: Space, precision: str) -> Callable[[Design], float]:
        """Return the price of the designs of a space, each computed once."""
        known: dict[Design, float] = {}
        whole = partial(self.of, space.anatomy, precision=precision)
        of = priced(self.model or CostModel({}), space.anatomy, precision) if self.timed else whole

        def price(design: Design) -> float:
            design = space.effective(design)
            if design not in known:
                known[design] = of(space.left(design))
            return known[design]

        return price

    def learned(self, seen: Sequence[Seen]) -> "Prices":
        """Return the prices after more measurements."""
        if not self.timed or not seen:
            return self
        everything = (*self.seen, *seen)
        model = fit([s.amounts for s in everything], [s.seconds for s in everything])
        return replace(self, seen=everything, model=model)


def glance(run: Run, prices: Prices, files: Mapping[int, tuple[Artefact, Features]]) -> Prices:
    """Return `prices` after timing some files for a moment each, in turns with the base.

    Args:
        run: the search.
        prices: so far.
        files: files and what they do; the keys only order them.
    """
    if not prices.timed or not files:
        return prices
    assert run.base.artefact is not None
    results = measure_all(
        run.base.artefact,
        [artefact for artefact, _ in files.values()],
        run.task.inputs,
        threads=run.request.threads,
        seconds=_GLANCE_S,
        batch=run.request.call_size,
        launches=1,
    )
    base_s = prices.base_s or next(
        (r.base.median_s for r in results if not isinstance(r, MeasurementError)), 0.0
    )
    seen = [
        Seen(amounts, base_s / result.ratio)
        for (_, amounts), result in zip(files.values(), results, strict=True)
        if not isinstance(result, MeasurementError)
    ]
    return replace(prices, base_s=base_s).learned(seen)
