"""The noun of the search: a Candidate is a plan, the model it gave, its file and what was measured of it."""

from dataclasses import dataclass, field

from torch import nn

from tersor.certification.certificate import Certificate
from tersor.exporting.artefact import Artefact
from tersor.measurement.quality import Quality
from tersor.measurement.result import Comparison
from tersor.planning.plan import Plan
from tersor.search.outcome import Fate


@dataclass(frozen=True)
class Candidate:
    """A model that a search made, or tried to.

    Attributes:
        name: short name, unique in a run.
        plan: what was changed, for the original model.
        model: the torch module, in eval mode; None if it could not be built.
        float_model: for a model in integers, the network in floating point that it was made from; else None.
        artefact: its file; None if it could not be exported.
        others: its files for further targets.
        steps: what was done, in words.
        why: why it was tried.
        quality: quality of the file on the search split.
        speed: how it runs against the base.
        parameters: number of parameters.
        macs: multiply-adds per sample.
        losses: training loss of each step.
        fate: what became of it.
        reason: the fate in words, with numbers.
        certificate: the claim on sealed data, if it was tested.
    """

    name: str
    plan: Plan = field(repr=False)
    model: nn.Module | None = field(default=None, repr=False)
    float_model: nn.Module | None = field(default=None, repr=False)
    artefact: Artefact | None = field(default=None, repr=False)
    others: tuple[Artefact, ...] = field(default=(), repr=False)
    steps: tuple[str, ...] = field(default=(), repr=False)
    why: str = field(default="", repr=False)
    quality: Quality | None = field(default=None, repr=False)
    speed: Comparison | None = field(default=None, repr=False)
    parameters: int = 0
    macs: int = 0
    losses: tuple[float, ...] = field(default=(), repr=False)
    fate: Fate = Fate.UNTESTED
    reason: str = ""
    certificate: Certificate | None = field(default=None, repr=False)

    @property
    def files(self) -> tuple[Artefact, ...]:
        """Its files, one a target; none if it could not be exported."""
        return () if self.artefact is None else (self.artefact, *self.others)

    @property
    def words(self) -> str:
        """Why it was tried and what became of it, in one line."""
        return (
            f"{self.name}: tried because {self.why or 'it was asked for'}; {self.fate.value}: {self.reason}"
        )
