"""The options of a data reference, and the file that it names."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from tersor._check import one_of
from tersor.errors import ArgumentError, DataError

_ON, _OFF = ("true", "yes", "1", ""), ("false", "no", "0")


def take_options(scheme: str, options: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    """Return `options` if all are known.

    Raises:
        DataError: naming the unknown option and those that exist.
    """
    names = tuple(known)
    unknown = [name for name in options if name not in names]
    if unknown:
        raise DataError(f"'{scheme}:' has no option {unknown[0]!r}; it takes {', '.join(names) or 'none'}.")
    return dict(options)


def existing(path: str) -> Path:
    """Return the file at `path`.

    Raises:
        DataError: if there is none.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise DataError(f"There is no data file {path!r} (looked from {str(Path.cwd())!r}).")
    return found


def is_on(options: Mapping[str, str], name: str, *, default: bool = False) -> bool:
    """Return whether the option `name` is on.

    Raises:
        DataError: if its value is neither yes nor no.

    Example:
        >>> is_on({"flat": "true"}, "flat")
        True
    """
    if name not in options:
        return default
    try:
        return one_of(name, options[name].lower(), (*_ON, *_OFF)) in _ON
    except ArgumentError as cause:
        raise DataError(str(cause)) from cause


def numbers(options: Mapping[str, str], name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    """Return the option `name` as numbers separated by commas.

    Raises:
        DataError: if they are not numbers.

    Example:
        >>> numbers({"mean": "0.5,0.4"}, "mean", ())
        (0.5, 0.4)
    """
    if name not in options:
        return default
    try:
        return tuple(float(part) for part in options[name].split(","))
    except ValueError:
        raise DataError(
            f"The option {name!r} takes numbers separated by commas, got {options[name]!r}."
        ) from None
