"""Argument checks shared by the public functions. Each message says what would do."""

from collections.abc import Iterable
from difflib import get_close_matches
from numbers import Real

from tersor.errors import ArgumentError


def fraction(name: str, value: float) -> float:
    """Return `value` if `0 <= value < 1`, else raise.

    Raises:
        ArgumentError: if `value` is not in `[0, 1)`.

    Example:
        >>> fraction("ratio", 0.5)
        0.5
        >>> fraction("ratio", 50)
        Traceback (most recent call last):
        ...
        tersor.errors.ArgumentError: `ratio` is a fraction in [0, 1), got 50. If you meant 50 per cent, pass 0.5.
    """
    number = isinstance(value, Real)
    if number and 0.0 <= value < 1.0:
        return float(value)
    hint = f" If you meant {value:g} per cent, pass {value / 100:g}." if number and 1 < value < 100 else ""
    raise ArgumentError(f"`{name}` is a fraction in [0, 1), got {value!r}.{hint}")


def positive(name: str, value: float) -> float:
    """Return `value` if it is finite and above zero, else raise.

    Raises:
        ArgumentError: if `value` is not a positive finite number.

    Example:
        >>> positive("lr", 0.1)
        0.1
    """
    if 0.0 < value < float("inf"):
        return value
    raise ArgumentError(f"`{name}` must be a positive finite number, got {value!r}.")


def not_negative(name: str, value: float) -> float:
    """Return `value` if it is finite and at least zero, else raise.

    Raises:
        ArgumentError: if `value` is negative or not finite.

    Example:
        >>> not_negative("weight_decay", 0.0)
        0.0
    """
    if 0.0 <= value < float("inf"):
        return value
    raise ArgumentError(f"`{name}` must be a finite number of at least 0, got {value!r}.")


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is in `allowed`, else raise and name the closest choice.

    Raises:
        ArgumentError: if `value` is not in `allowed`.

    Example:
        >>> one_of("goal", "latncy", ("latency", "size"))
        Traceback (most recent call last):
        ...
        tersor.errors.ArgumentError: `goal` must be one of 'latency', 'size', got 'latncy'. Did you mean 'latency'?
    """
    choices = tuple(allowed)
    if value in choices:
        return value
    close = get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ArgumentError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.{hint}")
