"""The public surface, frozen in `public_api.txt`: names, their parameters, commands and flags.

After a change that is meant: `python tests/test_api.py` writes the file again; the difference belongs in the changelog.
"""

import inspect
import sys
from pathlib import Path

import pytest

import tersor
from tersor.cli.app import COMMANDS, build_app

FROZEN = Path(__file__).with_name("public_api.txt")


def python_lines():
    for name in dir(tersor):
        value = getattr(tersor, name)
        if inspect.isfunction(value):
            parameters = ", ".join(
                f"{p.name}={p.default!r}" if p.default is not p.empty and not callable(p.default) else p.name
                for p in inspect.signature(value).parameters.values()
            )
            yield f"tersor.{name}({parameters})"
        else:
            yield f"tersor.{name}"


def command_lines():
    app = build_app()
    for name in COMMANDS:
        flags = sorted(
            {flag for argument in app[name].assemble_argument_collection() for flag in argument.names}
        )
        yield f"tersor {name} {' '.join(flags)}"


def surface():
    return "\n".join([*python_lines(), *command_lines()]) + "\n"


def test_the_public_surface_is_the_frozen_one():
    assert surface() == FROZEN.read_text()


def test_every_public_function_and_class_is_documented():
    for name in dir(tersor):
        value = getattr(tersor, name)
        if callable(value):
            assert inspect.getdoc(value), name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        tersor.nothing  # noqa: B018  # the access is the test


if __name__ == "__main__":
    sys.stdout.write(f"{FROZEN.write_text(surface())} characters written\n")
