"""Measuring the candidates together, and making sure of the one that is returned."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tersor.certification.certificate import Speedup
from tersor.errors import MeasurementError
from tersor.exporting.artefact import Artefact
from tersor.measurement.measure import compare, measure_all
from tersor.measurement.result import Comparison
from tersor.reporting.words import counted
from tersor.search.candidate import Candidate
from tersor.search.ending import PACES, Pace
from tersor.search.finalists import gain, shortcoming
from tersor.search.outcome import Fate
from tersor.search.prices import BYTES
from tersor.search.run import Run

#: Finalists before the boldest that are timed against it.
_NEIGHBOURS = 2


def measured(run: Run, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates with their speed against the best free baseline, all taken in the same rounds.

    Where time is short, those that miss the limit on the search data are not measured.
    """
    able = [candidate for candidate in candidates if candidate.artefact is not None]
    pace = run.ending.pace(run.clock.remaining_s, len(able))
    if pace != PACES[0]:
        able = [candidate for candidate in able if run.drop(candidate) < run.margin]
        pace = run.ending.pace(run.clock.remaining_s, len(able))
    if not able:
        return list(candidates)
    run.say("measure", f"{counted(len(able), 'file')} against the best free baseline, in turns")
    columns = [
        measure_all(
            rival,
            [candidate.files[place] for candidate in able],
            run.task.inputs,
            threads=run.request.threads,
            seconds=pace.glance_s,
            batch=run.request.call_size,
            launches=pace.glances,
        )
        for place, rival in enumerate(run.rivals)
    ]
    results = [_worst(row) for row in zip(*columns, strict=True)]
    known = dict(zip([candidate.name for candidate in able], results, strict=True))
    return [_with_speed(run, candidate, known.get(candidate.name)) for candidate in candidates]


def _worst(results: Sequence[Comparison | MeasurementError]) -> Comparison | MeasurementError:
    """Return the target in which a candidate does worst, or the error of one in which it cannot run."""
    found = [result for result in results if isinstance(result, Comparison)]
    errors = [result for result in results if isinstance(result, MeasurementError)]
    return errors[0] if errors else min(found, key=lambda one: one.low)


def _with_speed(run: Run, candidate: Candidate, result: object) -> Candidate:
    if isinstance(result, MeasurementError):
        return replace(candidate, fate=Fate.FAILED, reason=str(result), quality=None)
    if result is None:
        return candidate
    done = replace(candidate, speed=result)
    found = gain(run, done)
    assert found is not None
    run.say("measure", f"{candidate.name}: {found.words()} at {run.request.goal}")
    return done


def in_preference(run: Run, passed: Sequence[Candidate]) -> list[Candidate]:
    """Return the finalists that hold, the best first: the boldest, unless one before it is shown to be faster.

    Of two whose first times did not tell them apart, the one with less work stands for the faster. Integers, for one,
    are not twice as fast in every network; so the two are timed against each other, if there is time for it.
    """
    ranked = list(passed[::-1])
    for milder in passed[-2 : -2 - _NEIGHBOURS : -1]:
        pace = run.ending.duel_pace(run.clock.remaining_s)
        if pace is None or _apart(run, ranked[0], milder):
            continue
        duel = _looked(run, ranked[0].files, milder.files, pace)
        if duel.low > 1.0:
            times = f"{duel.ratio:.2f}x ({duel.low:.2f} to {duel.high:.2f}) as fast as {ranked[0].name}"
            run.say("measure", f"{milder.name} holds too, and is {times}")
            ranked.remove(milder)
            ranked.insert(0, milder)
    return ranked


def _apart(run: Run, bolder: Candidate, milder: Candidate) -> bool:
    """Whether the first measurement told which is better; that of sizes always does."""
    one, other = gain(run, bolder), gain(run, milder)
    assert one is not None
    assert other is not None
    return run.request.goal in BYTES or one.above(other)


def confirm(run: Run, chosen: Candidate) -> Candidate | None:
    """Return the certified candidate, measured longer; None if its gain or its limits do not stand that."""
    speed = _looked(run, run.rivals, chosen.files, run.ending.last_pace(run.clock.remaining_s))
    best = replace(chosen, speed=speed)
    return None if shortcoming(run, best, final=True) else _with_speedup(best)


def _looked(run: Run, bases: Sequence[Artefact], files: Sequence[Artefact], pace: Pace) -> Comparison:
    """Return how much faster `files` are than `bases`, in the target in which they do worst."""
    speeds = [
        compare(
            base,
            file,
            run.task.inputs,
            threads=run.request.threads,
            seconds=pace.look_s,
            batch=run.request.call_size,
            launches=pace.looks,
        )
        for base, file in zip(bases, files, strict=True)
    ]
    return min(speeds, key=lambda one: one.low)


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
