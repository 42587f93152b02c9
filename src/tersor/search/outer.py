"""The outer search: about ten multipliers on the predicted harms, each set of which decodes to one whole design."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tersor.planning.space import Unit

#: Parts of a network that have multipliers of their own.
STAGES = ("early", "middle", "late")
#: Multipliers lie between the inverse of this and this.
_REACH = 8.0
#: Proposals after which a search that brings nothing ends.
_PATIENCE = 8


@dataclass(frozen=True, slots=True)
class Multipliers:
    """Factors on the harms of units, by kind of edit and stage of the network.

    Attributes:
        logs: natural logarithm of each factor, by `kind.stage`; others are one.
    """

    logs: Mapping[str, float]

    def __call__(self, unit: Unit) -> float:
        """Return the factor of a unit.

        Example:
            >>> unit = Unit("drop", "layers.7", (1, 0), (0.0, 1.0), stage=0.9)
            >>> Multipliers({"drop.late": math.log(2.0)})(unit)
            2.0
        """
        return math.exp(self.logs.get(knob_of(unit), 0.0))


def knob_of(unit: Unit) -> str:
    """Return the name of the multiplier of a unit."""
    return f"{unit.kind}.{STAGES[min(len(STAGES) - 1, int(unit.stage * len(STAGES)))]}"


def knobs_of(units: Sequence[Unit]) -> tuple[str, ...]:
    """Return the multipliers that matter for some units: ten or fewer."""
    return tuple(dict.fromkeys(knob_of(unit) for unit in units))


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of multipliers and the value of the design it decodes to; lower is better."""

    multipliers: Multipliers
    value: float


def search_multipliers(
    knobs: Sequence[str],
    value: Callable[[Multipliers], float],
    *,
    seconds_left: Callable[[], float],
    trials: int = 40,
    seed: int = 0,
) -> tuple[Trial, ...]:
    """Try sets of multipliers, the neutral one first, proposed by Optuna's tree-structured Parzen estimator.

    Every set decodes to a whole design within the budget, so that no trial is spent on one that is too dear.

    Args:
        knobs: names of the multipliers.
        value: builds the stitched model of a set and returns how far it is from the original.
        seconds_left: time that may still be spent; no trial begins without any.
        trials: most trials.
        seed: of the proposals.

    Returns:
        The trials in their order.

    Raises:
        MissingExtraError: if Optuna is not installed.

    Example:
        >>> found = search_multipliers(
        ...     ("drop.late",), lambda m: abs(m.logs["drop.late"] - 1.0), seconds_left=lambda: 1.0, trials=25
        ... )
        >>> found[0].multipliers.logs, min(trial.value for trial in found) < 0.3
        ({'drop.late': 0.0}, True)

    Source:
        Frantar and Alistarh, SPDY: Accurate Pruning with Speedup Guarantees, ICML 2022, section 3.3 (search over
        reparametrised sensitivities on the stitched model).
    """
    from tersor._extras import require

    require("optuna", extra="search", purpose="The outer search")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=8))
    study.enqueue_trial(dict.fromkeys(knobs, 0.0))
    reach, found, best_at = math.log(_REACH), list[Trial](), 0
    while len(found) < trials and seconds_left() > 0 and len(found) - best_at < _PATIENCE + len(knobs):
        asked = study.ask()
        logs = {knob: asked.suggest_float(knob, -reach, reach) for knob in knobs}
        found.append(Trial(Multipliers(logs), value(Multipliers(logs))))
        study.tell(asked, found[-1].value)
        if found[-1].value < min((t.value for t in found[:-1]), default=math.inf):
            best_at = len(found)
    return tuple(found)
