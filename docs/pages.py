"""Writes the pages that come from the code: one for each algorithm, the commands, and the measured comparisons."""

import inspect
import io
import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
#: Sections of our docstrings, in the order in which a page shows them.
SECTIONS = ("Attributes", "Args", "Returns", "Raises", "Example", "Source")
_HEADING = re.compile(rf"({'|'.join((*SECTIONS, 'Note', 'Options of its artefacts'))}):\s*(.*)")
_LATEX = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)


@dataclass(frozen=True)
class Catalogue:
    """A family of algorithms: folder, heading, what it is for, and its members by name."""

    folder: str
    title: str
    intro: str
    members: Mapping[str, Any]


def catalogues() -> tuple[Catalogue, ...]:
    """Return every catalogue of tersor; importing the modules fills the registries."""
    for module in ("tersor.optimizers", "tersor.pruning.criteria", "tersor.quantization.quantize"):
        import_module(module)
    from tersor.certification.evidence.registry import TESTS
    from tersor.exporting.export import RUNTIMES
    from tersor.optimizers.registry import RECIPES
    from tersor.pruning.criteria.registry import CRITERIA
    from tersor.quantization.algorithms.registry import REFINEMENTS, RESCALINGS
    from tersor.quantization.ranges.registry import RANGES

    return (
        Catalogue(
            "optimizers",
            "Optimizers",
            "By name in `tersor.train`, `tersor.recover`, `tersor.distill` and `make_optimizer`; `auto` picks one.",
            RECIPES,
        ),
        Catalogue(
            "criteria",
            "Pruning criteria",
            "By name in `tersor.prune(criterion=...)`: which units go first.",
            CRITERIA,
        ),
        Catalogue("ranges", "Quantization ranges", "How the range of a grid is chosen.", RANGES),
        Catalogue(
            "rounding",
            "Quantization algorithms",
            "Rescalings leave the function as it is and make it round better; refinements choose codes. Layers "
            "with weights run in integers. The products of attention stay in floating point: in ONNX Runtime "
            "integers would save nothing of a transformer of 24 tokens and 3 % of one of 128. Static integers made "
            "for OpenVINO alone round queries and keys for their product, which has a faster kernel there "
            "(`bench/results/quantization_attention.md`). In ONNX Runtime the file computes what the torch model "
            "computes up to the order of sums; in deep networks with coarse grids last bits decide between codes, "
            "and `tersor.quantization.fidelity.repeatability` says how close a file can come "
            "(`bench/results/quantization_fidelity.md`). Certificates are about the file itself.",
            {**RESCALINGS, **REFINEMENTS},
        ),
        Catalogue(
            "distillation", "Distillation losses", "Callables of (student, teacher, target).", losses()
        ),
        Catalogue(
            "tests",
            "Tests behind a certificate",
            "Which one is used depends on the metric alone, and is fixed before the sealed data is opened.",
            {name: type(test) for name, test in TESTS.items()},
        ),
        Catalogue(
            "runtimes",
            "Runtimes",
            "By name in `tersor.export(runtime=...)` and `--target`; `tersor doctor` says which are ready.",
            {name: type(runtime) for name, runtime in RUNTIMES.items()},
        ),
    )


def losses() -> dict[str, type]:
    """Return the losses that the modules of the distillation room define."""
    from pkgutil import iter_modules

    import tersor.distillation as room

    found: dict[str, type] = {}
    for entry in iter_modules(room.__path__):
        module = import_module(f"{room.__name__}.{entry.name}")
        for name, kind in vars(module).items():
            own = inspect.isclass(kind) and kind.__module__ == module.__name__
            if own and not name.startswith("_") and not inspect.isabstract(kind) and _is_loss(kind):
                found[name] = kind
    return dict(sorted(found.items()))


def _is_loss(kind: type) -> bool:
    call = kind.__dict__.get("__call__")
    return call is not None and not getattr(kind, "_is_protocol", False)


def write_pages(folder: Path) -> None:
    """Write all generated pages into `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    for catalogue in catalogues():
        place = folder / catalogue.folder
        place.mkdir(parents=True)
        for name, member in catalogue.members.items():
            (place / f"{slug(name)}.md").write_text(algorithm_page(name, member), encoding="utf-8")
        (place / "index.md").write_text(contents(catalogue), encoding="utf-8")
    (folder / "commands.md").write_text(commands_page(), encoding="utf-8")
    results = ROOT / "bench" / "results"
    (folder / "compare.md").write_text(compare_page(results), encoding="utf-8")
    for picture in results.glob("*.svg"):
        shutil.copy(picture, folder)


def slug(name: str) -> str:
    """Return a file name for an algorithm."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def contents(catalogue: Catalogue) -> str:
    """Return the page of a family: a table of one line each, and the list of pages."""
    lines = [f"# {catalogue.title}", "", catalogue.intro, "", "| name | what it does |", "|---|---|"]
    for name, member in catalogue.members.items():
        first = inspect.getdoc(member) or ""
        sentence = escaped(" ".join(first.split("\n\n")[0].split())).replace("|", r"\|")
        lines.append(f"| [{name}]({slug(name)}.md) | {sentence} |")
    names = "\n".join(slug(name) for name in catalogue.members)
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", names, "```", ""])


def algorithm_page(name: str, member: Any) -> str:
    """Return the page of one algorithm, from its docstring."""
    doc = inspect.getdoc(member) or ""
    kind = member if inspect.isclass(member) or inspect.isfunction(member) else type(member)
    body, parts = sections(doc)
    lines = [f"# {name}", "", text(body), ""]
    for title in SECTIONS:
        if title in parts:
            lines += [f"## {title}", "", section(title, parts[title]), ""]
    home = f"{kind.__module__}.{kind.__qualname__}"
    return "\n".join([*lines, f"Defined as `{home}`.", ""])


def sections(doc: str) -> tuple[str, dict[str, str]]:
    r"""Split a docstring into its text and its sections.

    >>> sections("Do it.\n\nArgs:\n    x: a number.")
    ('Do it.', {'Args': 'x: a number.'})
    """
    body: list[str] = []
    parts: dict[str, list[str]] = {}
    current = body
    for line in doc.splitlines():
        match = _HEADING.fullmatch(line)
        if match:
            current = parts.setdefault(match[1], [])
            if match[2]:
                current.append(match[2])
        else:
            current.append(line)
    return "\n".join(body).strip(), {
        title: textwrap.dedent("\n".join(lines)).strip() for title, lines in parts.items()
    }


def section(title: str, content: str) -> str:
    """Return one section as Markdown."""
    if title == "Example" and ">>>" in content:
        return f"```pycon\n{content}\n```"
    if title in ("Attributes", "Args", "Raises"):
        return "\n".join(items(content))
    return text(content)


def items(content: str) -> Iterable[str]:
    """Yield `name: words` entries as a list; lines that are indented go on with the entry before."""
    joined = re.sub(r"\n\s+", " ", content)
    for line in joined.splitlines():
        name, colon, words = line.partition(": ")
        yield f"- `{name}`: {text(words)}" if colon else f"- {text(line)}"


def text(content: str) -> str:
    """Return prose as Markdown: display formulas as math, indented lines as code, all else shown as it is."""
    parts = _LATEX.split(content)
    done = [
        escaped(part) if place % 2 == 0 else f"\n```{{math}}\n{part.strip()}\n```\n"
        for place, part in enumerate(parts)
    ]
    return "".join(done)


def escaped(prose: str) -> str:
    r"""Escape what Markdown would take for itself, outside of code; indented lines become code.

    >>> print(escaped("a*b and `c*d`"))
    a\*b and `c*d`
    """
    blocks = []
    for block in re.split(r"\n\s*\n", prose):
        lines = block.splitlines()
        if lines and all(line.startswith("    ") for line in lines if line.strip()) and block.strip():
            blocks.append("```text\n" + textwrap.dedent(block) + "\n```")
            continue
        pieces = re.split(r"(`[^`]*`|\$[^$\n]+\$)", block)
        blocks.append(
            "".join(p if i % 2 else re.sub(r"([*_<\[\]#~^$\\|])", r"\\\1", p) for i, p in enumerate(pieces))
        )
    return "\n\n".join(blocks)


def commands_page() -> str:
    """Return the help of every command, as the command line prints it."""
    from rich.console import Console

    from tersor.cli.app import COMMANDS, build_app

    def printed(words: list[str]) -> str:
        stream = io.StringIO()
        build_app().help_print(words, console=Console(file=stream, width=100, color_system=None))
        lines = (line.rstrip() for line in stream.getvalue().splitlines())
        return "\n".join(lines).strip()

    parts = ["# Commands", "", "```text", printed([]), "```", ""]
    for name, (_, line) in COMMANDS.items():
        parts += [f"## {name}", "", line, "", "```text", printed([name]), "```", ""]
    return "\n".join(parts)


def compare_page(results: Path) -> str:
    """Return the measured comparisons, word for word as the benches wrote them."""
    lines = [
        "# How tersor compares",
        "",
        "Every table here was written by the command above it, on one machine, and says what ran and how often. "
        "Nothing is typed by hand; results that do not flatter tersor stand beside those that do. Run a bench again "
        "with `python -m bench.NAME`.",
        "",
    ]
    for path in sorted(results.glob("*.md")):
        content = path.read_text(encoding="utf-8").strip()
        lines += [re.sub(r"^(#+) ", r"#\1 ", content, flags=re.MULTILINE), ""]
    return "\n".join(lines)
