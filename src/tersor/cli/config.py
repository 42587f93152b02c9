"""Words of a command from a file: `--config run.toml` reads them, and every output folder holds its own."""

import json
import tomllib
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from inspect import BoundArguments
from pathlib import Path
from typing import Any

from tersor._check import one_of
from tersor.errors import ArgumentError
from tersor.loading.references import is_entry_point

_USED: ContextVar[str] = ContextVar("config", default="")


def take(tokens: list[str], flag: str, shape: str) -> tuple[list[str], list[str]]:
    """Take every `flag VALUE` out of the words of a command line; return the others, and the values.

    Raises:
        ArgumentError: if the last word is the flag; it then says what `shape` a value has.

    Example:
        >>> take(["check", "--track", "a", "--data", "d"], "--track", "tensorboard:DIR")
        (['check', '--data', 'd'], ['a'])
    """
    rest: list[str] = []
    values: list[str] = []
    words = iter(tokens)
    for word in words:
        name, equals, value = word.partition("=")
        if name != flag:
            rest.append(word)
            continue
        given = value if equals else next(words, "")
        if not given:
            raise ArgumentError(f"`{flag}` takes {shape}.")
        values.append(given)
    return rest, values


def split_config(tokens: list[str], commands: Collection[str]) -> tuple[list[str], Path | None]:
    """Take `--config FILE` out of the words of a command line.

    Args:
        tokens: the words.
        commands: names of all commands, which are the tables that the file may hold.

    Raises:
        ArgumentError: if the file is missing, is not TOML, or names code to run and lies outside of this folder.

    Example:
        >>> split_config(["check", "--data", "d"], ["check"])
        (['check', '--data', 'd'], None)
    """
    rest, files = take(tokens, "--config", "a file, such as `out/config.toml`")
    if len(files) > 1:
        raise ArgumentError("Give one `--config`; its file may hold a table for every command.")
    for file in files:
        _check(Path(file), commands, trusted="--allow-code-execution" in rest)
    return rest, Path(files[0]) if files else None


def _check(path: Path, commands: Collection[str], *, trusted: bool) -> None:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"The configuration {str(path)!r} cannot be read: {error}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ArgumentError(
            f"{str(path)!r} is not TOML: {error}. Write one table a command, such as [optimize]."
        ) from error
    for name, table in tables.items():
        one_of(f"table of {path.name}", name, commands)
        if not isinstance(table, dict):
            raise ArgumentError(
                f"{path.name} holds one table a command, such as [optimize]; {name!r} is none."
            )
    code = [name for name in _words(tables) if is_entry_point(name)]
    if code and not trusted and not path.resolve().is_relative_to(Path.cwd()):
        raise ArgumentError(
            f"{str(path)!r} names code to run ({code[0]}) and lies outside of this folder. Read it, then copy it here "
            "or add --allow-code-execution."
        )


def _words(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)


def as_toml(command: str, bound: BoundArguments) -> str:
    """Return the words of a call as a TOML table that `--config` reads; those left out have their defaults."""
    lines = [f"[{command}]"]
    whole = BoundArguments(bound.signature, OrderedDict(bound.arguments))
    whole.apply_defaults()
    for name, value in _flat(whole.arguments):
        written = _written(value)
        if written is not None:
            lines.append(f"{name.replace('_', '-')} = {written}")
    return "\n".join(lines) + "\n"


def _flat(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in arguments.items():
        if is_dataclass(value) and not isinstance(value, type):
            yield from ((field.name, getattr(value, field.name)) for field in fields(value))
        else:
            yield name, value


def _written(value: object) -> str | None:
    """Write a value as TOML, whose strings are those of JSON; None for what is not there."""
    if value is None or value == ():
        return None
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        return json.dumps([str(entry) for entry in value], ensure_ascii=False)
    return json.dumps(str(value), ensure_ascii=False)


@contextmanager
def used(text: str) -> Iterator[None]:
    """Remember the words of the command that is running."""
    token = _USED.set(text)
    try:
        yield
    finally:
        _USED.reset(token)


def used_words() -> str:
    """Return the words of the command that is running, as TOML; empty outside of the command line."""
    return _USED.get()
