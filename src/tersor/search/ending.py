"""What the end of a search costs, and the most careful way of ending it that fits the time."""

from dataclasses import dataclass

#: Seconds that a fresh process takes beyond opening its file: the first calls, which are not counted.
_WARMUP_S = 0.3
#: Share of the budget that the end may take where there is a choice, and what is added for a busy machine.
_SHARE, _SLACK = 0.22, 1.2
#: Files for whose test on the sealed samples time is kept; more are tested only where there happens to be time.
_TESTED = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How carefully files are measured.

    Attributes:
        glance_s: seconds for each candidate, to rank them.
        glances: fresh processes of each.
        look_s: seconds for the answer.
        looks: fresh processes of it.
    """

    glance_s: float
    glances: int
    look_s: float
    looks: int


#: From careful to quick.
PACES = (Pace(1.5, 3, 8.0, 6), Pace(0.8, 2, 4.0, 6), Pace(0.4, 1, 2.0, 3), Pace(0.2, 1, 1.0, 2))


@dataclass(frozen=True, slots=True)
class Ending:
    """What the parts of the end take on this machine.

    Attributes:
        launch_s: a fresh process that opens a file and runs it once, seconds.
        sealed_s: one file over the sealed samples.
        report_s: writing the folder.
    """

    launch_s: float = 0.0
    sealed_s: float = 0.0
    report_s: float = 6.0

    def measuring_s(self, pace: Pace, files: int) -> float:
        """Return the seconds in which `files` are ranked.

        Example:
            >>> round(Ending(launch_s=0.7).measuring_s(PACES[2], 4), 3)
            6.6
        """
        return pace.glances * (files + 1) * (self.launch_s + _WARMUP_S) + files * pace.glance_s

    def looking_s(self, pace: Pace) -> float:
        """Return the seconds in which one file is measured against another."""
        return pace.looks * 2 * (self.launch_s + _WARMUP_S) + pace.look_s

    def closing_s(self, pace: Pace) -> float:
        """Return the seconds in which the answer is measured and the folder written."""
        return self.looking_s(pace) + self.report_s

    @property
    def test_s(self) -> float:
        """Seconds in which one file is run over the sealed samples."""
        return self.launch_s + self.sealed_s

    def finalists(self, left_s: float, most: int) -> int:
        """Return how many files, at most `most`, can be tested and the best of them reported within `left_s`.

        Example:
            >>> slow = Ending(launch_s=1.0, sealed_s=25.0)
            >>> slow.finalists(100.0, 8), slow.finalists(200.0, 8), slow.finalists(float("inf"), 8)
            (3, 4, 8)
        """
        free_s = left_s / _SLACK - self.closing_s(PACES[-1]) - self.test_s
        return most if free_s >= most * self.test_s else min(most, max(_TESTED, int(free_s / self.test_s)))

    def total_s(self, pace: Pace, files: int) -> float:
        """Return the seconds from the last candidate to the end, with some slack."""
        tests = (min(files, _TESTED) + 1) * self.test_s
        return _SLACK * (self.measuring_s(pace, files) + tests + self.closing_s(pace))

    def reserve_s(self, budget_s: float, files: int) -> float:
        """Return what to keep of a budget: for a careful end if that is a small part of it, else for a quick one."""
        return self.total_s(self.pace(_SHARE * budget_s, files), files)

    def pace(self, left_s: float, files: int) -> Pace:
        """Return the most careful pace at which `files` are measured and the answer certified within `left_s`."""
        return next((pace for pace in PACES if self.total_s(pace, files) <= left_s), PACES[-1])

    def last_pace(self, left_s: float) -> Pace:
        """Return the most careful pace at which the answer is measured and written within `left_s`."""
        return next((pace for pace in PACES if _SLACK * self.closing_s(pace) <= left_s), PACES[-1])

    def duel_pace(self, left_s: float) -> Pace | None:
        """Return the most careful pace for two finalists if the answer is then measured as carefully; None for none.

        Example:
            >>> ending = Ending(launch_s=0.7)
            >>> [pace and pace.look_s for pace in (ending.duel_pace(left_s) for left_s in (10.0, 20.0, 100.0))]
            [None, 1.0, 8.0]
        """
        needed = ((pace, _SLACK * (self.looking_s(pace) + self.closing_s(pace))) for pace in PACES)
        return next((pace for pace, needed_s in needed if needed_s <= left_s), None)
