"""Where a descent is: which share of what could go is tried next, from which network, with how much of the time."""

import math
from dataclasses import dataclass, replace

from tersor.search.candidate import Candidate

#: Shares that differ by less than this factor are not worth another step.
_WORTHWHILE = 1.2
#: A later step gets this many times the time of the one before: the bolder, the longer the way back.
_GROWTH = 1.5
#: Where everything held and there is time, the next share is the last one over this; smaller ones leave nothing to cut.
_BOLDER, _LEAST = 2.5, 0.01

#: A network that lies less than so many standard errors from the limit may yet end on its other side.
NEAR = 2.0


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where the descent is: the shares still to be tried, and what held and missed so far.

    After a miss the share halfway (geometrically) between the boldest that held and the mildest that missed is tried,
    from the network that held and with more of the time left. Where all held, a search with time left goes on to
    bolder shares. Where time is for few trainings, one that ended near the limit, on either side, is the last step:
    to train it on pays more than another step.

    Attributes:
        shares: shares of what could go at the goal that are still planned, mild to bold.
        parent: the boldest network that holds; the next step starts from it.
        held: its share.
        missed: the mildest share that missed; 0 before any did.
        missing: the network that missed it; None where there is none.
        refinements: steps that may still be put between the two.
        open_end: whether bolder shares follow the planned ones while there is time.
        frugal: whether time is for few trainings.
        safe: how many standard errors the parent lies inside the limit.
    """

    shares: tuple[float, ...]
    parent: Candidate
    held: float = 1.0
    missed: float = 0.0
    missing: Candidate | None = None
    refinements: int = 1
    open_end: bool = False
    frugal: bool = False
    safe: float = math.inf

    @property
    def part(self) -> float:
        """Part of the time left that the next step may take: steps grow, and one more follows the planned ones."""
        if self.missed:
            return 0.5
        return 1.0 / sum(_GROWTH**later for later in range(len(self.shares) + self.open_end))

    def next_share(self) -> float | None:
        """Return the share to try next; None at the end.

        Example:
            >>> from tersor.planning.plan import Plan
            >>> ladder = Ladder((0.5, 0.2), Candidate("original", Plan()))
            >>> ladder.next_share(), ladder.after(ladder.parent, -3.0, counted=True).next_share()
            (0.5, 0.707)
        """
        if not self.missed:
            return self.shares[0] if self.shares else self._bolder()
        if not self.refinements or self.held / self.missed < _WORTHWHILE:
            return None
        return round(math.sqrt(self.held * self.missed), 3)

    def _bolder(self) -> float | None:
        share = round(self.held / _BOLDER, 3)
        clear = self.open_end and not (self.frugal and self.safe < NEAR)
        return share if clear and share >= _LEAST else None

    def after(self, made: Candidate, safe: float, *, counted: bool) -> "Ladder":
        """Return the ladder after the step to its next share.

        Args:
            made: the network.
            safe: how many standard errors it lies inside the limit; negative outside.
            counted: whether refinements are counted, because no budget ends them.
        """
        share = self.next_share()
        assert share is not None
        left = self.refinements - (counted and self.missed > 0)
        if safe > 0:
            return replace(self, shares=self.shares[1:], parent=made, held=share, safe=safe, refinements=left)
        missing = made if made.model is not None else self.missing
        left = 0 if self.frugal and safe > -NEAR else left
        return replace(self, shares=(), missed=share, missing=missing, refinements=left)
