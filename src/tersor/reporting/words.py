"""Numbers as words: one way to write each unit, the same in every document."""

from tersor.reporting.record import Estimate

#: Shown where a number was not measured.
MISSING = "–"


def quality(value: float | None) -> str:
    """Write a metric.

    Example:
        >>> quality(0.98611), quality(23.456), quality(None)
        ('0.9861', '23.46', '–')
    """
    if value is None:
        return MISSING
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.4g}"


def change(value: float) -> str:
    """Write a difference of two qualities.

    Example:
        >>> change(-0.0055), change(0.0), change(-1e-9)
        ('−0.0055', '0', '0')
    """
    return "0" if abs(value) < 5e-5 else ("+" if value > 0 else "−") + quality(abs(value))


def seconds(value: float | None) -> str:
    """Write a time with the unit that fits.

    Example:
        >>> seconds(4.12e-4), seconds(0.0951), seconds(3.2), seconds(400), seconds(7200), seconds(0.2)
        ('0.412 ms', '95.1 ms', '3.20 s', '6 min 40 s', '2 h', '200 ms')
    """
    if value is None:
        return MISSING
    if value >= 100:
        minutes, rest = divmod(round(value), 60)
        hours, minutes = divmod(minutes, 60)
        parts = ((hours, "h"), (minutes, "min"), (0 if hours else rest, "s"))
        return " ".join(f"{number} {unit}" for number, unit in parts if number)
    if value >= 1:
        return f"{_three(value)} s"
    return f"{_three(value * 1e3)} ms" if value >= 1e-5 else f"{_three(value * 1e6)} µs"


def _three(value: float) -> str:
    """Write three digits, zeros included."""
    return f"{value:#.3g}".rstrip(".")


def size(value: float | None) -> str:
    """Write a number of bytes in decimal units.

    Example:
        >>> size(1_710_000), size(640), size(None)
        ('1.71 MB', '640 B', '–')
    """
    return MISSING if value is None else _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def count(value: float | None) -> str:
    """Write a number of things.

    Example:
        >>> count(11_200_000), count(360)
        ('11.2 M', '360')
    """
    return MISSING if value is None else _scaled(value, ("", "k", "M", "G", "T"))


def counted(number: int, thing: str) -> str:
    """Write a number of things that are named.

    Example:
        >>> counted(1, "sample"), counted(1200, "sample")
        ('1 sample', '1,200 samples')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _scaled(value: float, units: tuple[str, ...]) -> str:
    place = 0
    while abs(value) >= 999.5 and place < len(units) - 1:
        value, place = value / 1000, place + 1
    digits = f"{value:.0f}" if not place or abs(value) >= 99.95 else f"{value:#.3g}"
    return f"{digits} {units[place]}".strip()


def share(value: float | None) -> str:
    """Write a fraction of a whole.

    Example:
        >>> share(0.1234), share(1e-4), share(2.5), share(1e-9)
        ('12.3%', '0.01%', '250%', '< 0.001%')
    """
    if value is None:
        return MISSING
    return "< 0.001%" if 0 < value < 1e-5 else f"{100 * value:.3g}%"


def factor(value: float | None) -> str:
    """Write a ratio.

    Example:
        >>> factor(3.4512), factor(12.4)
        ('3.45×', '12.4×')
    """
    return MISSING if value is None else f"{_three(value)}×"


def rate(value: float | None) -> str:
    """Write samples per second.

    Example:
        >>> rate(8403.2)
        '8.40 k/s'
    """
    return MISSING if value is None else f"{count(value)}/s" if value >= 100 else f"{_three(value)}/s"


def interval(estimate: Estimate | None, write=quality) -> str:
    """Write an estimate with its interval, if it has one.

    Example:
        >>> interval(Estimate(0.9806, 0.9612, 0.9911))
        '0.9806 (0.9612 to 0.9911)'
        >>> interval(Estimate(3.4, 3.3, 3.6), factor)
        '3.40× (3.30 to 3.60)'
        >>> interval(Estimate(0.0028, high=0.0086))
        '0.0028 (at most 0.0086)'
    """
    if estimate is None or estimate.value is None:
        return MISSING
    ends = [None if end is None else write(end).removesuffix("×") for end in (estimate.low, estimate.high)]
    return write(estimate.value) + _BOUNDS[ends[0] is not None, ends[1] is not None].format(*ends)


_BOUNDS = {
    (True, True): " ({0} to {1})",
    (True, False): " (at least {0})",
    (False, True): " (at most {1})",
    (False, False): "",
}
