"""Measuring the candidates together, and making sure of the one that is returned."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tersor.certification.certificate import Speedup
from tersor.errors import MeasurementError
from tersor.measurement.measure import compare, measure_all
from tersor.search.candidate import Candidate
from tersor.search.finalists import gain
from tersor.search.outcome import Fate
from tersor.search.run import Run

#: Seconds of measurement for each candidate at first, and for the answer.
_GLANCE_S, _LOOK_S = 1.5, 8.0
#: Fresh processes of each file that a ranking takes; the answer is measured in more.
_GLANCES = 3


def measured(run: Run, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with their speed against the best free baseline, all taken in the same rounds."""
    able = [candidate for candidate in candidates if candidate.artefact is not None]
    if not able:
        return list(candidates)
    run.say("measure", f"{len(able)} files against the best free baseline, in turns")
    results = measure_all(
        run.rival,
        [candidate.artefact for candidate in able if candidate.artefact is not None],
        run.task.inputs,
        threads=run.request.threads,
        seconds=_GLANCE_S,
        batch=run.request.call_size,
        launches=_GLANCES,
    )
    known = dict(zip([candidate.name for candidate in able], results, strict=True))
    return [_with_speed(run, candidate, known.get(candidate.name)) for candidate in candidates]


def _with_speed(run: Run, candidate: Candidate, result: object) -> Candidate:
    if isinstance(result, MeasurementError):
        return replace(candidate, fate=Fate.FAILED, reason=str(result), quality=None)
    if result is None:
        return candidate
    done = replace(candidate, speed=result)
    found = gain(run, done)
    assert found is not None
    words = f"{found.value:.2f}x ({found.low:.2f} to {found.high:.2f})"
    run.say("measure", f"{candidate.name}: {words} at {run.request.goal}")
    return done


def confirm(run: Run, chosen: Candidate) -> Candidate | None:
    """Return the certified candidate, measured longer; None if its gain does not stand that."""
    assert chosen.artefact is not None
    speed = compare(
        run.rival,
        chosen.artefact,
        run.task.inputs,
        threads=run.request.threads,
        seconds=_LOOK_S,
        batch=run.request.call_size,
    )
    best = replace(chosen, speed=speed)
    found = gain(run, best)
    return _with_speedup(best) if found is not None and found.low > 1.0 else None


def _with_speedup(best: Candidate) -> Candidate:
    """Write the final measurement into the certificate, where it stands beside the claim."""
    assert best.certificate is not None
    assert best.speed is not None
    speedup = Speedup(best.speed.ratio, best.speed.low, best.speed.high)
    return replace(best, certificate=replace(best.certificate, speedup=speedup))


def in_order(
    made: Sequence[Candidate], known: Iterable[Candidate], best: Candidate | None
) -> tuple[Candidate, ...]:
    """Return what is known of each candidate, in the order in which they were made."""
    latest = {candidate.name: candidate for candidate in known}
    if best is not None:
        latest[best.name] = best
    return tuple(latest.get(candidate.name, candidate) for candidate in made)
