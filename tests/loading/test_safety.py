"""What loading must never do, read from its own source."""

import ast
from pathlib import Path

import pytest

ROOM = Path(__file__).parents[2] / "src" / "tersor" / "loading"
FILES = sorted(ROOM.rglob("*.py"))
HOUSE = ROOM.parent
#: Every file of tersor, not only those of loading.
ALL = sorted(HOUSE.rglob("*.py"))
#: Calls that can run code from a file, and the files that may make them; each checks what it opens first.
GUARDED = {
    "torch.load": {"loading/weights.py"},
    "torch.export.load": {"exporting/torch_runtime.py"},
    "pickle.load": set(),
    "pickle.loads": set(),
    "pickle.Unpickler": set(),
    "joblib.load": set(),
    "yaml.load": set(),
    "torch.jit.load": set(),
    "eval": set(),
    "exec": set(),
    "os.system": set(),
    "subprocess.run": set(),
    "subprocess.Popen": {"measurement/runner.py"},
}


def calls(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("file", ALL, ids=lambda f: str(f.relative_to(HOUSE)))
def test_calls_that_can_run_code_are_made_where_it_is_checked_first(file):
    place = file.relative_to(HOUSE).as_posix()
    for call in calls(file.read_text()):
        name = ast.unparse(call.func)
        assert place in GUARDED.get(name, {place}), f"line {call.lineno}: {name}"


@pytest.mark.parametrize("file", ALL, ids=lambda f: str(f.relative_to(HOUSE)))
def test_numpy_never_unpickles_and_no_shell_is_started(file):
    for call in calls(file.read_text()):
        options = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert options.get("allow_pickle", "False") == "False"
        assert not ast.unparse(call.func).startswith("subprocess.") or "shell" not in options
        if ast.unparse(call.func) == "np.load" and ROOM in file.parents:
            assert "allow_pickle" in options


@pytest.mark.parametrize("file", ALL, ids=lambda f: str(f.relative_to(HOUSE)))
def test_remote_code_is_off_wherever_it_could_be_asked_for(file):
    for call in calls(file.read_text()):
        for keyword in call.keywords:
            if keyword.arg == "trust_remote_code":
                assert ast.unparse(keyword.value) in ("False", "allow_code_execution")


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
