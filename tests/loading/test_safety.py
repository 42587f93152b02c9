"""What loading must never do, read from its own source."""

import ast
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "src" / "tersor" / "loading"
FILES = sorted(ROOM.rglob("*.py"))
#: Calls that can run code from a file, and the one file that may make them.
GUARDED = {
    "torch.load": "weights.py",
    "np.load": "arrays.py",
    "pickle.load": None,
    "pickle.loads": None,
    "pickle.Unpickler": None,
    "joblib.load": None,
    "yaml.load": None,
    "torch.jit.load": None,
    "torch.export.load": None,
    "eval": None,
    "exec": None,
    "os.system": None,
    "subprocess.run": None,
    "subprocess.Popen": None,
}


def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOM)))
def test_calls_that_can_run_code_are_made_in_one_file_only(file):
    for call in calls(file.read_text()):
        name = ast.unparse(call.func)
        assert name not in GUARDED or GUARDED[name] == file.name, f"line {call.lineno}: {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOM)))
def test_numpy_never_unpickles(file):
    for call in calls(file.read_text()):
        options = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert options.get("allow_pickle", "False") == "False"
        if ast.unparse(call.func) == "np.load":
            assert "allow_pickle" in options


def test_the_scan_sees_an_unsafe_call():
    assert ast.unparse(calls("import torch\ntorch.load('x')")[0].func) == "torch.load"


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOM)))
def test_libraries_that_are_optional_or_slow_are_imported_where_they_are_needed(file):
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    assert not names & {
        "torchmetrics",
        "transformers",
        "sklearn",
        "pyarrow",
        "PIL",
        "timm",
        "datasets",
        "keras",
        "onnxruntime",
    }
