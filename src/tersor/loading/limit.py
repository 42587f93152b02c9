"""How much quality may be lost, and how much time may be spent: the two numbers that a user gives."""

import math
import re
from dataclasses import dataclass

from tersor.errors import ArgumentError

_SECONDS = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([dhms])")


@dataclass(frozen=True, slots=True)
class Drop:
    """The largest loss of quality that is accepted.

    Attributes:
        amount: the fraction of the baseline if relative, else a difference in the metric's own unit; not negative.
        relative: how `amount` is read.

    Example:
        >>> drop = Drop(0.01, relative=False)
        >>> round(drop.floor(0.922), 4)
        0.912
    """

    amount: float
    relative: bool

    def margin(self, baseline: float) -> float:
        """Return the accepted loss in the metric's own unit: `amount * |baseline|` if relative, else `amount`."""
        return self.amount * abs(baseline) if self.relative else self.amount

    def floor(self, baseline: float, higher_is_better: bool = True) -> float:
        """Return the worst accepted value: `baseline - margin`, or `baseline + margin` where lower is better.

        Raises:
            ArgumentError: if the baseline is not finite, or the floor would accept a metric of nothing at all.
        """
        if not math.isfinite(baseline):
            raise ArgumentError(
                f"The baseline metric is {baseline}, so no drop can be judged. Check the data and metric."
            )
        if not higher_is_better:
            return baseline + self.margin(baseline)
        if self.margin(baseline) >= baseline > 0:
            raise ArgumentError(
                f"`max_drop` {self} would accept any model: the baseline is {baseline:.4g}. "
                f"Write '{self.amount:g}%' for per cent of the baseline, or a smaller difference."
            )
        return baseline - self.margin(baseline)

    def words(self, metric: str, baseline: float, higher_is_better: bool = True) -> str:
        """Return the resolved limit in one line.

        Example:
            >>> Drop(0.01, relative=False).words("accuracy", 0.922)
            'limit: accuracy >= 0.9120 (baseline 0.9220, absolute 0.0100)'
            >>> Drop(0.01, relative=True).words("mse", 2.0, higher_is_better=False)
            'limit: mse <= 2.0200 (baseline 2.0000, relative 1% = absolute 0.0200)'
        """
        sign = ">=" if higher_is_better else "<="
        how = f"relative {self} = " if self.relative else ""
        floor, margin = self.floor(baseline, higher_is_better), self.margin(baseline)
        return f"limit: {metric} {sign} {floor:.4f} (baseline {baseline:.4f}, {how}absolute {margin:.4f})"

    def __str__(self) -> str:
        return f"{100 * self.amount:g}%" if self.relative else f"{self.amount:g}"


def parse_drop(value: "str | float | Drop") -> Drop:
    """Read an accepted drop: a number with a per cent sign is relative, a bare number is in the metric's unit.

    Args:
        value: `"1%"`, `"0.01"`, `0.01` or a `Drop`.

    Returns:
        The drop.

    Raises:
        ArgumentError: if it is not a number, negative, or 100% and more.

    Example:
        >>> parse_drop("1%")
        Drop(amount=0.01, relative=True)
        >>> parse_drop(0.01)
        Drop(amount=0.01, relative=False)
    """
    if isinstance(value, Drop):
        return value
    text = str(value).strip()
    relative = text.endswith("%")
    try:
        amount = float(text.removesuffix("%")) / (100 if relative else 1)
    except ValueError:
        amount = math.nan
    if isinstance(value, bool) or not math.isfinite(amount) or amount < 0 or (relative and amount >= 1):
        raise ArgumentError(
            f"`max_drop` is a part of the baseline such as '1%' (from 0% to below 100%), or a difference in the "
            f"metric's own unit such as 0.01, got {value!r}."
        )
    return Drop(amount, relative)


def parse_budget(value: "str | float | None") -> float | None:
    """Read a time budget in seconds.

    Args:
        value: `"90s"`, `"30m"`, `"1h30m"`, `"2d"`, a number of seconds, or None for no limit.

    Returns:
        Seconds, or None.

    Raises:
        ArgumentError: if it is not a positive finite time.

    Example:
        >>> parse_budget("1h30m")
        5400.0
        >>> parse_budget(90)
        90.0
    """
    if value is None:
        return None
    text = str(value).strip().lower()
    parts = _PART.findall(text)
    if parts and not _PART.sub("", text).strip():
        seconds = math.fsum(float(number) * _SECONDS[unit] for number, unit in parts)
    else:
        try:
            seconds = float(text)
        except ValueError:
            seconds = math.nan
    if isinstance(value, bool) or not 0 < seconds < math.inf:
        raise ArgumentError(
            f"`budget` is a time such as '30m', '1h30m', '90s' or seconds as a number, got {value!r}."
        )
    return seconds
