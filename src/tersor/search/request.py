"""What a search was asked for, checked once and frozen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from fnmatch import fnmatch
from math import inf
from pathlib import Path
from typing import Any, TypedDict

from tersor._check import fraction, one_of, positive
from tersor.errors import ArgumentError, MissingExtraError
from tersor.exporting.export import RUNTIMES
from tersor.loading.limit import Drop, parse_budget, parse_drop
from tersor.loading.onnx.graph_model import GraphModel
from tersor.loading.task import Task
from tersor.search.cluster import require_ray
from tersor.search.events import Listener, silent
from tersor.search.executors import EXECUTORS
from tersor.search.limits import Limits, parse_bytes, parse_limits

GOALS = ("latency", "throughput", "size", "memory")
#: Runtimes that a model can be made for: their files stand on their own.
TARGETS = ("onnxruntime", "openvino", "executorch")
#: As the only target: the one of those in which the original is best here; `choose_target` takes it.
AUTO = "auto"
METHODS = ("prune", "factorize", "drop", "quantize", "weight_only", "distill")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model comes from: a reference, a file of weights, arguments of its factory.

    Attributes:
        model: reference such as `package.module:factory`.
        weights: file of weights; empty for none.
        arguments: of the factory.
    """

    model: str
    weights: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)


class Options(TypedDict, total=False):
    """The less common words of `tersor.optimize`; see there.

    `origin`, `lead_s`, `command` and `config` come from the command line: how to load the model again, the seconds
    already spent of the budget, and what was typed.
    """

    confidence: float
    methods: Sequence[str]
    leave: Sequence[str]
    threads: int
    batch: int
    seed: int
    loss: str | Callable[..., Any] | None
    ledger: Path | str | None
    limits: Mapping[str, str]
    max_candidates: int
    max_memory: str | float
    executor: str
    leave_out_copies: bool
    output: Path | str | None
    origin: Origin
    lead_s: float
    command: str
    config: str
    on_event: Listener


@dataclass(frozen=True, slots=True)
class Request:
    """What a search was asked for.

    Attributes:
        drop: largest loss of quality.
        targets: runtimes that the answer has to hold in; `auto` alone until one is chosen.
        goal: what is made better.
        budget_s: time in seconds; None for the default effort.
        confidence: confidence of the certificate, in (0.5, 1).
        methods: which kinds of change are tried.
        leave: patterns of layer names that stay as they are.
        threads: threads of the target runtime.
        batch: samples per call in measurements; 0 for the goal's usual one (1 for latency, 32 for throughput).
        seed: of every random choice.
        limits: what the answer may take at most.
        max_candidates: candidates that are tried at most.
        max_memory: resident memory that making a candidate may take, bytes.
        executor: where the model work of candidates is done.
        listen: told about everything that happens.
    """

    drop: Drop
    targets: tuple[str, ...] = ("onnxruntime",)
    goal: str = "latency"
    budget_s: float | None = None
    confidence: float = 0.95
    methods: tuple[str, ...] = METHODS
    leave: tuple[str, ...] = ()
    threads: int = 1
    batch: int = 0
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    max_candidates: float = inf
    max_memory: float = inf
    executor: str = "local"
    listen: Listener = silent

    @property
    def target(self) -> str:
        """The runtime that the file is for; the first of several."""
        return self.targets[0]

    @property
    def rounds_as(self) -> str:
        """The runtime whose places of rounding integers take.

        ExecuTorch's kernels all need a rounded result, which others may have; OpenVINO's places suit no other.
        """
        if "executorch" in self.targets:
            return "executorch"
        return "openvino" if self.targets == ("openvino",) else "onnxruntime"

    @property
    def call_size(self) -> int:
        """Samples per call when speed is measured."""
        return self.batch or (32 if self.goal == "throughput" else 1)

    def as_config(self) -> dict[str, object]:
        """Return the request as plain values, for the artefact folder."""
        return {
            "max_drop": str(self.drop),
            "target": ",".join(self.targets),
            "goal": self.goal,
            "budget_s": self.budget_s,
            "confidence": self.confidence,
            "methods": list(self.methods),
            "leave": list(self.leave),
            "threads": self.threads,
            "batch": self.call_size,
            "seed": self.seed,
            "limits": self.limits.stated(),
            "executor": self.executor,
        }

    def leaves_alone(self, name: str) -> bool:
        """Whether the user asked to leave the layer or group called `name` as it is."""
        return any(fnmatch(name, pattern) or name.startswith(pattern + ".") for pattern in self.leave)


def make_request(
    max_drop: str | float,
    target: str | Sequence[str],
    goal: str,
    budget: str | float | None,
    options: Options,
) -> Request:
    """Check what the user asked for.

    Raises:
        ArgumentError: at the first value that is not accepted, saying what is.
        MissingExtraError: if a target's runtime, or Ray where it was asked for, is not installed here.

    Example:
        >>> make_request("1%", "onnxruntime", "latency", "30m", {"seed": 3}).budget_s
        1800.0
    """
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        one_of("option", sorted(unknown)[0], Options.__annotations__)
    methods = tuple(one_of("methods", method, METHODS) for method in options.get("methods", METHODS))
    if not set(methods) - {"distill"}:
        raise ArgumentError(
            "`methods` must hold 'prune', 'quantize' or another that makes a model smaller: distillation does not."
        )
    confidence = fraction("confidence", options.get("confidence", 0.95))
    if confidence <= 0.5:
        raise ArgumentError(f"`confidence` is usually 0.95 and must be above 0.5, got {confidence!r}.")
    return Request(
        drop=parse_drop(max_drop),
        targets=_targets(target),
        goal=one_of("goal", goal, GOALS),
        budget_s=None if budget is None else parse_budget(budget),
        confidence=confidence,
        methods=methods,
        leave=tuple(options.get("leave", ())),
        threads=int(positive("threads", options.get("threads", 1))),
        batch=int(options.get("batch", 0)),
        seed=int(options.get("seed", 0)),
        limits=parse_limits(options.get("limits", {})),
        max_candidates=_most_candidates(options),
        max_memory=_most_memory(options),
        executor=_executor(options),
        listen=options.get("on_event", silent),
    )


def installed_targets() -> tuple[str, ...]:
    """Return the runtimes installed here that a search can be for; the usual one where none is."""
    return tuple(name for name in TARGETS if not RUNTIMES[name].missing()) or TARGETS[:1]


def check_leave(request: Request, task: Task) -> None:
    """Refuse a pattern of layers to leave alone that no layer, parameter or group has.

    Raises:
        ArgumentError: naming the pattern and the closest names.
    """
    names = [name for name, _ in (*task.model.named_modules(), *task.model.named_parameters()) if name]
    names += task.model.layers if isinstance(task.model, GraphModel) else ()
    for pattern in request.leave:
        alone = replace(request, leave=(pattern,))
        if not any(map(alone.leaves_alone, names)):
            close = get_close_matches(pattern, names, n=3) or names[:3]
            raise ArgumentError(
                f"`leave` matches nothing: no layer is called {pattern!r}. Names look like {', '.join(close)}; "
                "`*` stands for any part."
            )


def _most_candidates(options: Options) -> float:
    most = options.get("max_candidates")
    return inf if most is None else positive("max_candidates", most)


def _targets(target: str | Sequence[str]) -> tuple[str, ...]:
    named = target.split(",") if isinstance(target, str) else target
    targets = tuple(dict.fromkeys(one_of("target", name.strip(), (*TARGETS, AUTO)) for name in named))
    if not targets:
        raise ArgumentError(f"`target` names at least one of {', '.join(TARGETS)}, or is {AUTO!r}.")
    if targets == (AUTO,):
        return targets
    if AUTO in targets:
        raise ArgumentError(
            f"The target {AUTO!r} stands alone: it takes the one runtime in which the original is best. For a model "
            "that holds in several, name them, such as 'onnxruntime,executorch'."
        )
    for name in targets:
        if RUNTIMES[name].missing():
            raise MissingExtraError(
                f"The target {name!r} needs {RUNTIMES[name].missing()}, which is not installed here. A file is only "
                "called faster where it was measured, so install it, or leave this target out."
            )
    return targets


def _executor(options: Options) -> str:
    name = one_of("executor", options.get("executor", "local"), EXECUTORS)
    if name == "ray":
        require_ray()
    return name


def _most_memory(options: Options) -> float:
    most = options.get("max_memory")
    return inf if most is None else parse_bytes("max_memory", most)
