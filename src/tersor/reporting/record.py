"""The Record: everything a report says, as plain frozen data that prints nothing and computes nothing.

Search fills it in; the documents of this room only format it. A number that was not measured, or that is not
finite, is None. Times are in seconds, sizes in bytes, qualities in the unit of the metric. A field that does not
exist or has the wrong type raises `pydantic.ValidationError`, which is a ValueError.
"""

from collections.abc import Mapping
from dataclasses import field
from datetime import datetime
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from tersor.errors import ArgumentError
from tersor.reporting.details import ChangedAnswer, Operator, Phase, Roofline, Slice
from tersor.reporting.numbers import STRICT, Count, Number

#: Version of the layout of `report.json`; it grows when a field changes its meaning or goes.
SCHEMA = 1


class Standing(StrEnum):
    """Whether a candidate keeps the quality that was asked for."""

    HOLDS = "holds"
    MISSES = "misses"
    UNTESTED = "not tested"


@dataclass(frozen=True, slots=True, config=STRICT)
class Estimate:
    """A number with its interval.

    Attributes:
        value: the point estimate.
        low: lower end of the interval; None without one.
        high: upper end of the interval; None without one.
        confidence: probability that the interval is to cover.
    """

    value: Number
    low: Number = None
    high: Number = None
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Split:
    """A part of the data: its name, how many samples it has, and how it was made."""

    name: str
    samples: int
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Aim:
    """What was asked for.

    Attributes:
        kind: kind of task (`classification`, `regression`, ...).
        model: name of the model.
        metric: name of the metric.
        higher_is_better: direction of the metric.
        limit: the limit in words, as resolved (`accuracy >= 0.9761 (absolute drop 0.0100)`).
        floor: the worst quality that is allowed.
        allowed_drop: the largest loss of quality that is allowed, absolute, in the metric's unit.
        target: runtime that the artefact is for.
        target_because: how it was chosen, in a sentence; empty where it was asked for.
        goal: `latency`, `throughput`, `size` or `memory`.
        splits: the parts of the data.
        drawn: reference that drew the inputs at random, where there was no data; empty for data.
    """

    kind: str
    model: str
    metric: str
    higher_is_better: bool
    limit: str
    floor: Number = None
    allowed_drop: Number = None
    target: str = "onnxruntime"
    goal: str = "latency"
    splits: tuple[Split, ...] = ()
    drawn: str = ""
    target_because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Verdict:
    """The answer.

    Attributes:
        outcome: name of the outcome, for programs (`certified`, `nothing_faster`, ...).
        standing: whether what is shipped keeps the limit.
        sentence: the answer in one sentence, with the limit and the interval.
        advice: what to do next; empty when nothing is left to do.
    """

    outcome: str
    standing: Standing
    sentence: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Latency:
    """Times of one call.

    Attributes:
        median_s: median time of a call.
        p90_s: time that 90 per cent of the calls stay under.
        p99_s: time that 99 per cent of the calls stay under.
        throughput_per_s: samples per second.
        calls: number of timed calls; None where it is that of `samples_s`.
        samples_s: the times themselves, or as many evenly spaced quantiles of them, for the picture.
    """

    median_s: Number
    p90_s: Number = None
    p99_s: Number = None
    throughput_per_s: Number = None
    calls: Count = None
    samples_s: tuple[Number, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Row:
    """A model that was looked at: the base, a free baseline, or a candidate.

    Attributes:
        name: short name, unique in the record.
        recipe: what was done, one step each, in words.
        methods: the algorithms used.
        runtime: where it ran.
        standing: whether it keeps the limit.
        quality: metric on the search split.
        certified: metric on the certification split.
        drop: loss of quality against the base on the certification split, paired; positive is worse.
        speedup: how many times faster than the base; the interval is that of the ratio.
        latency: times of one call.
        size_bytes: everything that has to be shipped.
        peak_bytes: peak resident memory while running.
        parameters: number of parameters.
        macs: multiply-adds for one sample.
        tried_because: why search tried it.
        dropped_because: why search left it; empty when it was not left.
    """

    name: str
    recipe: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    runtime: str = ""
    standing: Standing = Standing.UNTESTED
    quality: Estimate | None = None
    certified: Estimate | None = None
    drop: Estimate | None = None
    speedup: Estimate | None = None
    latency: Latency | None = None
    size_bytes: Count = None
    peak_bytes: Count = None
    parameters: Count = None
    macs: Count = None
    tried_because: str = ""
    dropped_because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Layer:
    """What the chosen plan did to one layer.

    Attributes:
        name: name of the layer in the user's model.
        kind: what it is (`Conv2d`).
        change: what was done, in words; empty when it was left as it is.
        before: shape or bits before.
        after: shape or bits after.
        reason: why it was changed, or why it could not be.
        sensitivity: share of the energy of the outputs that changes when this layer alone is changed, by method
            (`prune 50%`, `8-bit integers`).
    """

    name: str
    kind: str = ""
    change: str = ""
    before: str = ""
    after: str = ""
    reason: str = ""
    sensitivity: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Curve:
    """A quantity over training.

    Attributes:
        name: whose training it is.
        quantity: what is drawn (`training loss`); curves of one quantity share a picture.
        unit: unit of `steps` (`step`, `epoch`).
        steps: where.
        values: how much; None where it was not finite.
    """

    name: str
    quantity: str
    steps: tuple[Number, ...]
    values: tuple[Number, ...]
    unit: str = "step"


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Claim:
    """The certificate in words, and its numbers as they are to be shown."""

    paragraph: str
    numbers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Record:
    """Everything about one run, ready to be formatted.

    Attributes:
        title: heading of the documents.
        created: when the run ended, ISO 8601 with a time zone.
        tersor_version: version that made it.
        aim: what was asked for.
        verdict: the answer.
        base: the original model in its best free runtime; every factor is against it.
        candidates: what was tried, in the order of trying.
        chosen: index into `candidates` of what is shipped; None when the original is.
        baselines: the original model in every runtime that costs nothing.
        layers: what was done to which layer, in the order of the network.
        operators: operators of the files, the most frequent first.
        slices: quality by class or part of the data.
        changed: samples whose answer changed; only where they were asked for, because they are the user's data.
        curves: training curves.
        claim: the certificate.
        roofline: limits of the machine.
        conditions: how times were taken, in words.
        machine: processor, memory, system, threads.
        versions: packages.
        seeds: seeds by use.
        command: the command that reproduces the run.
        config: its words in full, as TOML for `--config`; empty outside of the command line.
        phases: use of the budget.
        budget_s: the budget.
        warnings: what a reader must know before trusting a number.
        omitted: parts of the report that could not be made, and why.
        schema: version of this layout.

    Example:
        >>> aim = Aim(kind="classification", model="lenet", metric="accuracy", higher_is_better=True, limit="none")
        >>> verdict = Verdict(outcome="nothing_faster", standing=Standing.UNTESTED, sentence="Nothing was faster.")
        >>> record = Record(title="lenet", created="2026-01-31T12:00:00+00:00", tersor_version="0.1.0",
        ...                 aim=aim, verdict=verdict, base=Row(name="original"))
        >>> Record.from_json(record.to_json()) == record
        True
        >>> record.shipped.name
        'original'
    """

    title: str
    created: str
    tersor_version: str
    aim: Aim
    verdict: Verdict
    base: Row
    candidates: tuple[Row, ...] = ()
    chosen: int | None = None
    baselines: tuple[Row, ...] = ()
    layers: tuple[Layer, ...] = ()
    operators: tuple[Operator, ...] = ()
    slices: tuple[Slice, ...] = ()
    changed: tuple[ChangedAnswer, ...] = ()
    curves: tuple[Curve, ...] = ()
    claim: Claim | None = None
    roofline: Roofline | None = None
    conditions: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seeds: Mapping[str, int] = field(default_factory=dict)
    command: str = ""
    config: str = ""
    phases: tuple[Phase, ...] = ()
    budget_s: Number = None
    warnings: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.chosen is not None and not 0 <= self.chosen < len(self.candidates):
            raise ValueError(
                f"`chosen` must be None or an index into the {len(self.candidates)} candidates, got {self.chosen}."
            )
        try:
            datetime.fromisoformat(self.created)
        except ValueError as error:
            raise ArgumentError(
                f"`created` must be ISO 8601, as `datetime.isoformat` gives it: {error}."
            ) from error

    @property
    def shipped(self) -> Row:
        """The row of what is shipped: the chosen candidate, or the base."""
        return self.base if self.chosen is None else self.candidates[self.chosen]

    def to_json(self) -> str:
        """Return the record as indented JSON."""
        return _adapter().dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Record":
        """Read a record written by `to_json`.

        Raises:
            ArgumentError: if the text is not a record of this schema, naming the first field at fault.
        """
        try:
            record = _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the text"
            raise ArgumentError(f"This is not a tersor record: {where}: {first['msg']}.") from error
        if record.schema != SCHEMA:
            raise ArgumentError(
                f"This record has schema {record.schema}; this version of tersor reads {SCHEMA}. Use the tersor "
                f"{record.tersor_version} that wrote it."
            )
        return record


def _adapter() -> TypeAdapter[Record]:
    return TypeAdapter(Record)
