"""The rooms' import order, import cycles, and the size gates, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "tersor"

#: The rooms in the order in which data flows; a room may import those before it.
ROOMS = (
    "loading", "graph", "analysis", "planning", "pruning", "quantization", "factorization", "surgery",
    "distillation", "optimizers", "recovery", "exporting", "measurement", "certification", "reporting",
    "search", "cli",
)  # fmt: skip
BASE = {"errors", "_check", "_extras", "_version"}
STRANGERS = {"pruning", "quantization", "factorization"}
#: Files that are tables, named one by one; this list may only shrink.
TABLES: set[str] = set()

FILES = sorted(ROOT.rglob("*.py"))


def room_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[str]:
    """Names of tersor modules imported anywhere in the tree, functions included."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"tersor.{a.name}" for a in node.names] if node.module == "tersor" else [node.module]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return [name for name in names if name == "tersor" or name.startswith("tersor.")]


def allowed(room: str) -> set[str]:
    if room in BASE:
        return BASE
    before = set(ROOMS[: ROOMS.index(room)]) | {room} | BASE
    if room in STRANGERS:
        before -= STRANGERS - {room}
    if room == "surgery":
        before -= STRANGERS
    return before


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_before_it(file):
    room = room_of(file)
    if room == "__init__":
        return
    for name in imports(ast.parse(file.read_text())):
        assert name != "tersor", (
            f"{file.name} imports the facade; import from the module that defines the name"
        )
        used = name.split(".")[1]
        assert used in allowed(room), f"{room} may not import {used} ({name})"


def module_name(file: Path) -> str:
    parts = ("tersor", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_itself_through_others():
    known = {module_name(file): file for file in FILES}
    edges = {
        name: {
            target
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module in known
            for target in [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            if target in known and target != name
        }
        for name, file in known.items()
        if name != "tersor"
    }
    done: set[str] = set()

    def walk(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        if name not in done:
            for target in edges.get(name, ()):
                walk(target, (*path, name))
            done.add(name)

    for name in edges:
        walk(name, ())


def functions(tree: ast.AST):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def own_lines(function: ast.FunctionDef) -> int:
    """Lines of the body without the docstring and nested functions."""
    body = function.body
    if isinstance(body[0], ast.Expr) and isinstance(getattr(body[0], "value", None), ast.Constant):
        body = body[1:]
    if not body:
        return 0
    nested = sum(n.end_lineno - n.lineno + 1 for n in functions(ast.Module(body, [])))
    return body[-1].end_lineno - body[0].lineno + 1 - nested


BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match)


def depth(node: ast.AST, level: int = 0) -> int:
    """Deepest nesting of blocks; an `elif` counts with its `if`."""
    deepest = level
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(
                child, ast.FunctionDef | ast.ClassDef | ast.Lambda
            ):
                continue
            is_elif = isinstance(node, ast.If) and name == "orelse" and isinstance(child, ast.If)
            deeper = isinstance(child, BLOCKS) and not is_elif
            deepest = max(deepest, depth(child, level + deeper))
    return deepest


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_files_and_functions_stay_small(file):
    text = file.read_text()
    if str(file.relative_to(ROOT)) not in TABLES:
        assert len(text.splitlines()) <= 400, "over 400 lines"
    for function in functions(ast.parse(text)):
        where = f"{file.name}:{function.lineno} {function.name}"
        arguments = function.args
        count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
        count -= bool(arguments.args) and arguments.args[0].arg in ("self", "cls")
        assert own_lines(function) <= 60, f"{where}: over 60 own lines"
        assert depth(function) <= 3, f"{where}: nested deeper than 3"
        assert count <= 7, f"{where}: more than 7 parameters"


def test_most_functions_are_short():
    lengths = sorted(own_lines(f) for file in FILES for f in functions(ast.parse(file.read_text())))
    assert not lengths or lengths[int(0.9 * len(lengths))] <= 20


def test_the_gates_see_a_long_nested_function():
    blocks = ("if a:", "for b in a:", "while b:", "if b:", "pass")
    source = "def f(a):\n" + "".join(f"{'    ' * level}{text}\n" for level, text in enumerate(blocks, 1))
    function = functions(ast.parse(source))[0]
    assert depth(function) == 4
    assert own_lines(function) == 5
