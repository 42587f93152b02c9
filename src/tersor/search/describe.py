"""From what a search knows to the Record that reports are made of."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf

from tersor._version import __version__
from tersor.certification.certificate import Certificate
from tersor.measurement.machine import this_machine
from tersor.measurement.result import Comparison, Measurement
from tersor.reporting.record import (
    Aim,
    Claim,
    Curve,
    Estimate,
    Latency,
    Record,
    Row,
    Split,
    Standing,
    Verdict,
)
from tersor.reporting.words import counted
from tersor.search.candidate import Candidate
from tersor.search.finalists import gain
from tersor.search.insight import Insight
from tersor.search.layer_rows import layer_rows
from tersor.search.outcome import Fate, Outcome
from tersor.search.run import Baseline, Run
from tersor.search.unlearned import advise

_STANDING = {Fate.CERTIFIED: Standing.HOLDS, Fate.REFUSED: Standing.MISSES, Fate.MISSED: Standing.MISSES}
_SPLITS = ("train", "calibration", "search", "certification")
#: Points of a training curve that a picture can show.
_POINTS = 200
_NONE = Insight()


@dataclass(frozen=True, slots=True)
class Story:
    """What a record is made from: the run, what was tried, and how it ended."""

    run: Run
    tried: tuple[Candidate, ...]
    best: Candidate | None
    outcome: Outcome
    notes: tuple[str, ...]

    @property
    def certificate(self) -> Certificate | None:
        """The claim about what is shipped."""
        return None if self.best is None else self.best.certificate

    @property
    def answer(self) -> Candidate:
        """What is shipped."""
        return self.best or self.run.base


def sentence(story: Story) -> str:
    """Return the answer in one sentence, with the limit and the interval."""
    run, best = story.run, story.best
    if best is None:
        return "The original is the answer: nothing better was certified and measured."
    found = gain(run, best)
    assert found is not None
    assert best.certificate is not None
    words = {"latency": "faster", "throughput": "faster", "size": "smaller", "memory": "lighter"}[
        run.request.goal
    ]
    interval = f" (95% interval {found.low:.2f} to {found.high:.2f})" if found.low < found.high else ""
    limits = f"meets {run.request.limits}" if run.request.limits else ""
    if found.low <= 1.0:
        gained = f"{limits}, which the original does not"
    else:
        gained = (
            f"is {found.value:.2f}x {words} than the best free baseline{interval}{limits and f', {limits}'}"
        )
    metric = run.task.metric
    worsens = "drops" if metric.higher_is_better else "rises"
    return (
        f"{best.name} {gained}, and with "
        f"{run.request.confidence:.0%} confidence its {metric.name} {worsens} by at most {run.margin:.4g} "
        f"({best.certificate.samples} sealed {'inputs drawn at random' if run.task.drawn else 'samples'})."
    )


def describe(story: Story, command: str = "", config: str = "", insight: Insight = _NONE) -> Record:
    """Return the record of a run.

    Args:
        story: the run, and how it ended.
        command: the command that repeats it.
        config: its words in full.
        insight: what was learnt after the end.
    """
    run = story.run
    best_index = next((i for i, c in enumerate(story.tried) if c is story.best), None)
    return Record(
        title=type(run.task.model).__name__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tersor_version=__version__,
        aim=_aim(story),
        verdict=_verdict(story),
        base=_base_row(run, story),
        candidates=tuple(_row(story, candidate) for candidate in story.tried),
        chosen=best_index,
        baselines=tuple(_baseline_row(run, baseline) for baseline in run.baselines),
        layers=layer_rows(run.task.model, story.answer, insight),
        operators=insight.operators,
        slices=insight.slices,
        curves=tuple(_curve(candidate) for candidate in story.tried if candidate.losses),
        claim=_claim(story),
        conditions=_conditions(run),
        machine=_machine(run),
        versions=_versions(),
        seeds={"search": run.request.seed},
        roofline=insight.roofline,
        command=command,
        config=config,
        phases=insight.phases,
        budget_s=run.request.budget_s,
        warnings=tuple(n.removeprefix("warning").strip() for n in story.notes if n.startswith("warning")),
        omitted=insight.omitted,
    )


def _aim(story: Story) -> Aim:
    run, task = story.run, story.run.task
    assert run.base.quality is not None
    splits = (task.train, task.calibration, task.search, task.certification)
    origins = _origins(story.notes)
    return Aim(
        kind=task.kind,
        model=type(task.model).__name__,
        metric=task.metric.name,
        higher_is_better=task.metric.higher_is_better,
        limit=_limit(run),
        floor=run.floor,
        allowed_drop=run.margin,
        target=run.request.target,
        target_because=run.target_because,
        goal=run.request.goal,
        drawn=task.drawn,
        splits=tuple(
            Split(name=name, samples=len(split), origin=origins.get(name, ""))
            for name, split in zip(_SPLITS, splits, strict=True)
        ),
    )


def _origins(notes: Sequence[str]) -> dict[str, str]:
    """Return how each split was made, from the notes `split   NAME COUNT: how`."""
    found = {}
    for note in notes:
        name, _, how = note.removeprefix("split").strip().partition(":")
        if note.startswith("split") and how:
            found[name.split(" ")[0]] = how.strip()
    return found


def _limit(run: Run) -> str:
    assert run.base.quality is not None
    metric = run.task.metric
    words = run.request.drop.words(metric.name, run.base.quality.value, metric.higher_is_better)
    return words.removeprefix("limit: ")


def _verdict(story: Story) -> Verdict:
    holds = story.best is not None
    return Verdict(
        outcome=story.outcome.name.lower(),
        standing=Standing.HOLDS if holds else Standing.UNTESTED,
        sentence=sentence(story),
        advice=_advice(story),
    )


def _advice(story: Story) -> str:
    """Return what to do next; after a search without data also what would make a claim about real inputs."""
    short = story.outcome is Outcome.NOTHING_HELD
    drawn = advise(story.run.task, tried=bool(story.tried), short=short)
    said = story.best is not None or (drawn and not story.tried)
    return " ".join(text for text in ("" if said else story.outcome.value, drawn) if text)


def _base_row(run: Run, story: Story) -> Row:
    """Return the original as the candidates are compared with it."""
    measured = next((c.speed.base for c in (story.best, *story.tried) if c is not None and c.speed), None)
    assert run.base.artefact is not None
    assert run.base.quality is not None
    certified = None if story.certificate is None else story.certificate.base_quality
    return Row(
        name="original",
        runtime=run.rival.runtime,
        quality=Estimate(value=run.base.quality.value),
        certified=None if certified is None else Estimate(value=certified),
        latency=_latency(measured),
        size_bytes=run.base.artefact.size_bytes,
        peak_bytes=None if measured is None else measured.peak_bytes,
        parameters=run.base.parameters,
        macs=run.base.macs,
    )


def _recipe(story: Story, candidate: Candidate) -> tuple[str, ...]:
    """Return what was done; for the answer with every step that led to it."""
    first, *rest = candidate.steps or ("",)
    parent = next((c for c in story.tried if first == f"start from {c.name}"), None)
    if candidate is not story.best or parent is None:
        return candidate.steps
    chain = list(rest)
    while parent is not None:
        first, *steps = parent.steps
        earlier = next((c for c in story.tried if first == f"start from {c.name}"), None)
        chain = [*(steps if earlier else parent.steps), *chain]
        parent = earlier
    return tuple(chain)


def _row(story: Story, candidate: Candidate) -> Row:
    run = story.run
    measured = None if candidate.speed is None else candidate.speed.candidate
    return Row(
        name=candidate.name,
        recipe=_recipe(story, candidate),
        methods=tuple(dict.fromkeys(type(edit).__name__.lower() for edit in candidate.plan.edits)),
        runtime=run.request.target,
        standing=_STANDING.get(candidate.fate, Standing.UNTESTED),
        quality=None if candidate.quality is None else Estimate(value=candidate.quality.value),
        certified=_certified(candidate),
        drop=_drop(candidate),
        speedup=_speedup(candidate.speed),
        latency=_latency(measured),
        size_bytes=None if candidate.artefact is None else candidate.artefact.size_bytes,
        peak_bytes=None if measured is None else measured.peak_bytes,
        parameters=candidate.parameters or None,
        macs=candidate.macs or None,
        tried_because=candidate.why,
        dropped_because=""
        if candidate.fate is Fate.CERTIFIED
        else f"{candidate.fate.value}: {candidate.reason}",
    )


def _certified(candidate: Candidate) -> Estimate | None:
    claim = candidate.certificate
    if claim is None or claim.evidence is None or claim.base_quality is None:
        return None
    sign = -1.0 if claim.claim.higher_is_better else 1.0
    return Estimate(value=claim.base_quality + sign * claim.evidence.estimate)


def _drop(candidate: Candidate) -> Estimate | None:
    claim = candidate.certificate
    if claim is None or claim.evidence is None:
        return None
    high = claim.claim.margin if claim.bound is None else min(claim.bound, claim.claim.margin)
    return Estimate(value=claim.evidence.estimate, high=high, confidence=claim.claim.confidence)


def _speedup(speed: Comparison | None) -> Estimate | None:
    if speed is None or speed.high == inf:  # too few turns for an interval
        return None if speed is None else Estimate(value=speed.ratio)
    return Estimate(value=speed.ratio, low=speed.low, high=speed.high)


def _latency(measured: Measurement | None) -> Latency | None:
    if measured is None:
        return None
    return Latency(
        median_s=measured.median_s,
        p90_s=measured.p90_s,
        p99_s=measured.p99_s,
        throughput_per_s=measured.throughput_per_s,
        calls=measured.calls,
        samples_s=measured.quantiles_s,
    )


def _baseline_row(run: Run, baseline: Baseline) -> Row:
    """Return a free baseline; the first is what the others were measured against, and has its time from them."""
    against = next((other.speed.base for other in run.baselines if other.speed), None)
    return Row(
        name=baseline.name,
        runtime=baseline.artefact.runtime,
        speedup=_speedup(baseline.speed) or Estimate(value=1.0),
        latency=_latency(baseline.speed.candidate if baseline.speed else against),
        size_bytes=baseline.artefact.size_bytes,
        tried_because="the best free baseline" if baseline.artefact == run.rival else "free",
        dropped_because=baseline.reason,
    )


def _curve(candidate: Candidate) -> Curve:
    stride = max(1, len(candidate.losses) // _POINTS)
    losses = candidate.losses[::stride]
    return Curve(
        name=candidate.name,
        quantity="distillation loss",
        steps=tuple(float(i * stride) for i in range(len(losses))),
        values=losses,
    )


def _claim(story: Story) -> Claim | None:
    certificate = story.certificate
    if certificate is None:
        return None
    evidence = certificate.evidence
    numbers = {
        "test": f"{certificate.method.name}, version {certificate.method.version} ({certificate.method.kind})",
        "sealed samples": f"{certificate.samples:,}",
        "margin": f"{certificate.claim.margin:.4g}",
        "confidence": f"{certificate.claim.confidence:.4g}",
        "attempt on this data": str(certificate.attempt.number),
        "level of this attempt": f"{certificate.attempt.alpha:.4g}",
        "data": certificate.data_sha256,
        "file": certificate.artefact_sha256,
    }
    if evidence is not None:
        numbers |= {"drop on the sealed samples": f"{evidence.estimate:.4g}", "p-value": f"{evidence.p:.3g}"}
    return Claim(paragraph=certificate.words(), numbers=numbers)


def _conditions(run: Run) -> str:
    calls = f"{counted(run.request.call_size, 'sample')} a call on {counted(run.request.threads, 'thread')}"
    return (
        f"{calls}, each file in a process of its own, in turns with the base; 95% intervals of the median ratio from "
        "order statistics."
    )


def _machine(run: Run) -> dict[str, str]:
    machine = this_machine()
    return {
        "processor": machine.processor,
        "features": " ".join(machine.features),
        "cores": str(machine.cores),
        "memory": f"{machine.memory_bytes / 2**30:.1f} GiB",
        "load": f"{machine.load:.1f}",
        "system": machine.system,
        "threads used": str(run.request.threads),
    }


def _versions() -> dict[str, str]:
    return {"tersor": __version__, "python": platform.python_version(), **this_machine().versions}
