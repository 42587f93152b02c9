"""What README and pages say exists: commands, names, numbers, and the picture."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from cyclopts import CycloptsError

import tersor
from tersor.cli.app import COMMANDS, build_app
from tersor.cli.config import take
from tersor.reporting.record import Record

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "tasks").glob("*.md")),
]
RESULTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "bench" / "results").glob("*.md"))
_COMMAND = re.compile(r"tersor [a-z].*")
#: A measured number: a factor, a percentage with decimals, or a value with its error.
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:x|×)(?![\w\d])|\d+\.\d+ ?%|± ?\d[\d.]*%?")


def name(path):
    return str(path.relative_to(ROOT))


def script(file):
    """Import a script of the docs folder."""
    spec = importlib.util.spec_from_file_location(f"docs_{file}", ROOT / "docs" / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def commands(text):
    """Yield the command lines of the code blocks, and those in backticks that have an argument."""
    for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        joined = block.replace("\\\n", " ")
        yield from (line.partition("#")[0] for line in joined.splitlines() if _COMMAND.match(line.strip()))
    yield from (" ".join(code.split()) for code in re.findall(r"`(tersor [a-z][^`]*)`", text))


def misunderstood(words):
    """Return what the command line does not understand of `words`; empty where it does."""
    try:
        build_app().parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_that_a_page_shows_is_understood(page):
    for line in commands(page.read_text(encoding="utf-8")):
        words = shlex.split(re.split(r"  +", line.strip())[0])[1:]
        words, _ = take(words, "--track", "a tracker")
        words, _ = take(words, "--config", "a file")
        assert words[0] in COMMANDS, line
        if len(words) == 1 or "--config" in line or not {w for w in words if not w.isupper()} - {words[0]}:
            continue
        fault = misunderstood(words)
        # A sentence may leave out what is required; a word that does not exist is wrong everywhere.
        assert not fault or "requires an argument" in fault or "missing" in fault.lower(), (line, fault)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_measured_number_on_a_page_stands_in_the_results(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    written = {number.replace(" ", "") for number in _NUMBER.findall(RESULTS)}
    for number in _NUMBER.findall(text):
        assert number.replace(" ", "") in written, f"{number!r} is not in bench/results"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_name_of_the_facade_that_a_page_uses_exists(page):
    for used in set(re.findall(r"\btersor\.([a-z_]+)\(", page.read_text(encoding="utf-8"))):
        assert used in dir(tersor), used


def test_the_readme_is_short_and_has_one_picture():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    assert re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text) == ["docs/picture.svg"]


def test_the_picture_is_drawn_from_the_measured_run():
    record = Record.from_json((ROOT / "bench" / "results" / "cifar10.json").read_bytes())
    drawn = script("picture").draw(record)
    assert (ROOT / "docs" / "picture.svg").read_text(encoding="utf-8") == drawn
    assert "<script" not in drawn
    assert record.verdict.sentence.split("(")[0] in drawn


def test_every_algorithm_has_a_page_with_its_source(tmp_path):
    pages = script("pages")
    pages.write_pages(tmp_path / "generated")
    for catalogue in pages.catalogues():
        listed = (tmp_path / "generated" / catalogue.folder / "index.md").read_text(encoding="utf-8")
        for member in catalogue.members:
            page = tmp_path / "generated" / catalogue.folder / f"{pages.slug(member)}.md"
            assert page.is_file(), member
            assert f"({page.name})" in listed
    told = (tmp_path / "generated" / "commands.md").read_text(encoding="utf-8")
    assert all(f"Usage: tersor {command}" in told for command in COMMANDS)


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("A *b*.\n\nArgs:\n    x: one\n        two.", "- `x`: one two."),
        ("A.\n\nSource:\n    Name_of <x>, 2020.", r"Name\_of \<x>, 2020."),
        ("A.\n\nExample:\n    >>> 1\n    1", "```pycon\n>>> 1\n1\n```"),
        ("A.\n\n$$x_1$$\n\nB.", "```{math}\nx_1\n```"),
    ],
)
def test_docstrings_become_markdown_that_shows_what_they_say(doc, expected):
    pages = script("pages")

    class Thing:
        pass

    Thing.__doc__ = doc
    assert expected in pages.algorithm_page("thing", Thing)
