"""The words that several commands share, once, with their help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

_MORE = "Less common"


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ModelFlags:
    """How a model is found."""

    weights: Path | None = None
    "File with the weights: safetensors, or a `.pt` that holds tensors only."

    model_arg: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    "Argument for the model's factory, as `name=value`; may be repeated."

    allow_code_execution: Annotated[bool, Parameter(negative=())] = False
    "Open files that run code when loaded (pickled modules). Only for files that you made yourself."


#: A model whose reference says it all.
NO_MODEL = ModelFlags()


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class SearchFlags:
    """What is asked for; the same words as in `tersor.optimize`."""

    metric: str | None = None
    "Name of a metric, or `module:function`; inferred from the labels when left out."

    target: str = "onnxruntime"
    "Runtime of the file; auto races the installed ones; onnxruntime,executorch seeks one model for both."

    goal: str = "latency"
    "What to make better: latency, throughput, size or memory."

    budget: str | None = None
    "Time for all of it, such as 30m or 2h; a fixed, moderate effort when left out."

    limit: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    "Most that the answer may take: size=1MB, latency=2ms or memory=50MB; may be repeated."

    max_candidates: int | None = None
    "Try at most so many candidates."

    max_memory: str | None = None
    "Memory that making a candidate may take, such as 4GB."

    executor: str = "local"
    "Where candidates are made: local, or ray for a Ray cluster; they are measured here."

    leave_out_copies: Annotated[bool, Parameter(negative=())] = False
    "Leave out of train and search what the sealed samples hold too, instead of refusing."

    methods: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    "Kinds of change to try; all of them when left out."

    leave: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    "Names or patterns of layers to leave as they are; may be repeated."

    confidence: float = 0.95
    "Confidence of the certificate."

    threads: int = 1
    "Threads of the target runtime."

    batch: int = 0
    "Samples per call when measuring; 0 takes 1, or 32 for throughput."

    seed: int = 0
    "Seed of every random choice."

    examples: int = 0
    "Samples whose answer changed to show in the report; they are your data, so none unless asked for."

    dry_run: Annotated[bool, Parameter(negative=())] = False
    "Say what would be tried, what can be certified and how long it would take; write nothing."

    ledger: Path | None = None
    "File that counts the attempts on this certification data; the one in the output folder when left out."


def limits_of(flags: SearchFlags) -> dict[str, str]:
    """Return `--limit name=value` as a mapping.

    Raises:
        ArgumentError: if one of them has no `=`.
    """
    return _pairs("--limit", flags.limit, "size=1MB")


def arguments_of(flags: ModelFlags) -> dict[str, str]:
    """Return `--model-arg name=value` as a mapping.

    Raises:
        ArgumentError: if one of them has no `=`.
    """
    return _pairs("--model-arg", flags.model_arg, "name=value")


def _pairs(flag: str, words: tuple[str, ...], example: str) -> dict[str, str]:
    from tersor.errors import ArgumentError

    split = [word.partition("=") for word in words]
    for name, equals, _ in split:
        if not equals:
            raise ArgumentError(f"`{flag}` takes {example}, got {name!r}.")
    return {name: value for name, _, value in split}
