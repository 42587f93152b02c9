"""What a search was asked for, checked once and frozen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypedDict

from tersor._check import fraction, one_of, positive
from tersor.errors import ArgumentError
from tersor.loading.limit import Drop, parse_budget, parse_drop
from tersor.search.events import Listener, silent

GOALS = ("latency", "throughput", "size", "memory")
TARGETS = ("onnxruntime",)
METHODS = ("prune", "quantize", "distill")


class Options(TypedDict, total=False):
    """The less common words of `tersor.optimize`; see there."""

    confidence: float
    methods: Sequence[str]
    leave: Sequence[str]
    threads: int
    batch: int
    seed: int
    loss: str | Callable[..., Any] | None
    ledger: Path | str | None
    on_event: Listener


@dataclass(frozen=True, slots=True)
class Request:
    """What a search was asked for.

    Attributes:
        drop: largest loss of quality.
        target: runtime that the file is for.
        goal: what is made better.
        budget_s: time in seconds; None for the default effort.
        confidence: confidence of the certificate, in (0.5, 1).
        methods: which kinds of change are tried.
        leave: patterns of layer names that stay as they are.
        threads: threads of the target runtime.
        batch: samples per call in measurements; 0 for the goal's usual one (1 for latency, 32 for throughput).
        seed: of every random choice.
        listen: told about everything that happens.
    """

    drop: Drop
    target: str = "onnxruntime"
    goal: str = "latency"
    budget_s: float | None = None
    confidence: float = 0.95
    methods: tuple[str, ...] = METHODS
    leave: tuple[str, ...] = ()
    threads: int = 1
    batch: int = 0
    seed: int = 0
    listen: Listener = silent

    @property
    def call_size(self) -> int:
        """Samples per call when speed is measured."""
        return self.batch or (32 if self.goal == "throughput" else 1)

    def as_config(self) -> dict[str, object]:
        """Return the request as plain values, for the artefact folder."""
        return {
            "max_drop": str(self.drop),
            "target": self.target,
            "goal": self.goal,
            "budget_s": self.budget_s,
            "confidence": self.confidence,
            "methods": list(self.methods),
            "leave": list(self.leave),
            "threads": self.threads,
            "batch": self.call_size,
            "seed": self.seed,
        }

    def leaves_alone(self, name: str) -> bool:
        """Whether the user asked to leave the layer or group called `name` as it is."""
        return any(fnmatch(name, pattern) or name.startswith(pattern + ".") for pattern in self.leave)


def make_request(
    max_drop: str | float, target: str, goal: str, budget: str | float | None, options: Options
) -> Request:
    """Check what the user asked for.

    Raises:
        ArgumentError: at the first value that is not accepted, saying what is.

    Example:
        >>> make_request("1%", "onnxruntime", "latency", "30m", {"seed": 3}).budget_s
        1800.0
    """
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        one_of("option", sorted(unknown)[0], Options.__annotations__)
    methods = tuple(one_of("methods", method, METHODS) for method in options.get("methods", METHODS))
    if not {"prune", "quantize"} & set(methods):
        raise ArgumentError(
            "`methods` must hold 'prune' or 'quantize': distillation alone makes nothing smaller."
        )
    confidence = fraction("confidence", options.get("confidence", 0.95))
    if confidence <= 0.5:
        raise ArgumentError(f"`confidence` is usually 0.95 and must be above 0.5, got {confidence!r}.")
    return Request(
        drop=parse_drop(max_drop),
        target=one_of("target", target, TARGETS),
        goal=one_of("goal", goal, GOALS),
        budget_s=None if budget is None else parse_budget(budget),
        confidence=confidence,
        methods=methods,
        leave=tuple(options.get("leave", ())),
        threads=int(positive("threads", options.get("threads", 1))),
        batch=int(options.get("batch", 0)),
        seed=int(options.get("seed", 0)),
        listen=options.get("on_event", silent),
    )
