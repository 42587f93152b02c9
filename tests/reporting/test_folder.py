import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tersor.errors import ArgumentError, FolderError
from tersor.reporting import folder as folder_module
from tersor.reporting.folder import MARKER, find_faults, place_folder, read_record, rewrite, write_folder
from tersor.reporting.remains import beside, clear_remains, restore_folder
from tersor.reporting.runner import run_script


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """y = relu(x) @ w, x of shape (batch, 3); and tokens added up, so that integers go in too."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, (3, 2), np.arange(6, dtype="f4"))
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
        helper.make_node("Add", ["t", "t"], ["z"]),
    ]
    floats = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])
    tokens = helper.make_tensor_value_info("t", TensorProto.INT64, ["batch", "length"])
    outs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("z", TensorProto.INT64, ["batch", "length"]),
    ]
    graph = helper.make_graph(nodes, "g", [floats, tokens], outs, [weight])
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    onnx.save(helper.make_model(graph, ir_version=9, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture
def out(tmp_path, bare, model) -> Path:
    return write_folder(tmp_path / "out", bare, files={"model.onnx": model}, certificate='{"claim": 1}')


def test_the_folder_holds_what_it_promises(out):
    assert {path.name for path in out.iterdir()} == {
        "model.onnx", "certificate.json", "tersor.json", "report.html", "report.json", "README.md", "run.py",
        "SHA256SUMS", "DONE.json",
    }  # fmt: skip
    assert find_faults(out) == ()


def test_only_the_folder_is_left_behind(out):
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_others_may_read_the_folder_as_the_umask_says(tmp_path, bare):
    before = os.umask(0o022)
    try:
        out = write_folder(tmp_path / "out", bare, files={})
    finally:
        os.umask(before)
    assert stat.S_IMODE(out.stat().st_mode) == 0o755
    assert stat.S_IMODE((out / "report.html").stat().st_mode) == 0o644


def test_the_sums_are_those_that_sha256sum_checks(out):
    for line in (out / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest


def test_the_certificate_is_written_as_it_is(out):
    assert (out / "certificate.json").read_text() == '{"claim": 1}'


def test_its_record_can_be_read_back(out, bare):
    assert read_record(out) == bare


def test_run_py_runs_on_random_and_on_given_arrays(out, tmp_path):
    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-I", str(out / "run.py"), "--runs", "2", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "output y: shape (4, 2), float32" in run("--batch", "4", "--threads", "1")
    np.save(tmp_path / "x.npy", np.ones((5, 3), "f4"))
    np.save(tmp_path / "t.npy", np.ones((5, 1), "i8"))
    given = run("--input", str(tmp_path / "x.npy"), str(tmp_path / "t.npy"))
    assert "shape (5, 2)" in given
    assert "median" in given
    assert find_faults(out) == ()


def test_run_py_opens_the_model_as_it_was_measured(tmp_path, bare, model):
    options = {
        "graph_optimization": "disable",
        "memory_arena": False,
        "entries": {"session.x'); exit(9) #": "1"},
    }
    out = write_folder(tmp_path / "out", bare, files={"model.onnx": model}, options=options)
    text = (out / "run.py").read_text()
    assert "ORT_DISABLE_ALL" in text
    assert "enable_cpu_mem_arena = False" in text
    done = subprocess.run(
        [sys.executable, "-I", str(out / "run.py"), "--runs", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_run_py_says_how_many_files_it_takes(out):
    command = [sys.executable, "-I", str(out / "run.py"), "--input", "one.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--input takes 2 files, for x, t" in done.stderr


@pytest.mark.parametrize("name", ["a b.onnx", "../m.onnx", '"+x', ""])
def test_run_py_takes_only_plain_names(name):
    with pytest.raises(ArgumentError, match="plain file name"):
        run_script(name)


_WRITER = """
import sys
from tersor.reporting.folder import read_record, write_folder
record = read_record(sys.argv[1])
print("ready", flush=True)
while True:
    write_folder(sys.argv[2], record, files={"model.onnx": sys.argv[3]})
"""


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_folder(tmp_path, out, model):
    target = tmp_path / "killed" / "out"
    target.parent.mkdir()
    for delay_s in (0.3, 0.31, 0.36):
        command = [sys.executable, "-c", _WRITER, str(out), str(target), str(model)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "ready\n"
            deadline = time.monotonic() + 30
            while not target.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(delay_s)
            writer.kill()
        whole = target if target.exists() else next(target.parent.glob(".out.*.old"))
        assert find_faults(whole) == ()


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def left(target, owner, suffix):
    """A folder as a killed process leaves it."""
    name = re.sub(r"-\d+-", f"-{owner}-", beside(target).name)
    folder = target.with_name(name).with_suffix(suffix)
    folder.mkdir()
    (folder / "mine").write_text("content")
    return folder


def test_what_killed_processes_left_is_removed_by_the_next_one_and_nothing_else(tmp_path, bare, dead):
    target = tmp_path / "out"
    gone = [left(target, dead, ".new"), left(target, dead, ".old")]
    kept = [
        left(target, os.getpid(), ".new"),
        left(tmp_path / "out.b", dead, ".old"),
        left(tmp_path / "b", dead, ".new"),
    ]
    foreign = [
        tmp_path / f".out.{name}.old" for name in ("precious", "0123abcd-1-zz", "ffffffff-999999-a1b2c3")
    ]
    for folder in foreign:
        folder.mkdir()
    write_folder(target, bare, files={})
    write_folder(target, bare, files={})
    assert find_faults(target) == ()
    assert not any(folder.exists() for folder in gone)
    assert all(folder.exists() for folder in (*kept, *foreign))


def test_a_folder_that_waits_aside_comes_back_unless_its_owner_still_works(tmp_path, dead):
    target = tmp_path / "out"
    busy = left(target, os.getpid(), ".old")
    assert not restore_folder(target).exists()
    older, newer = left(target, dead, ".old"), left(target, dead, ".old")
    os.utime(older, (1, 1))
    (newer / "mine").write_text("newest")
    clear_remains(target)
    assert (target / "mine").read_text() == "newest"
    assert not older.exists()
    assert busy.exists()


def test_its_own_folder_is_replaced(out, bare, model):
    write_folder(out, bare, files={"other.onnx": model})
    assert (out / "other.onnx").exists()
    assert not (out / "model.onnx").exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_an_empty_folder_is_taken(tmp_path, bare):
    (tmp_path / "out").mkdir()
    assert find_faults(write_folder(tmp_path / "out", bare, files={})) == ()


def foreign_file(out: Path) -> None:
    (out / "thesis.tex").write_text("mine")


def foreign_nested(out: Path) -> None:
    (out / "notes").mkdir()
    (out / "notes" / "a.txt").write_text("mine")


def edited(out: Path) -> None:
    (out / "README.md").write_text("mine")


def removed(out: Path) -> None:
    (out / "run.py").unlink()


def unmarked(out: Path) -> None:
    (out / MARKER).unlink()


def other_marker(out: Path) -> None:
    (out / MARKER).write_text('{"tool": "other", "files": {}}')


def broken_marker(out: Path) -> None:
    (out / MARKER).write_text("[1]")


def linked(out: Path) -> None:
    (out / "report.html").rename(out.parent / "report.html")
    (out / "report.html").symlink_to(out.parent / "report.html")


@pytest.mark.parametrize(
    "change", [foreign_file, foreign_nested, edited, removed, unmarked, other_marker, broken_marker, linked]
)
def test_a_folder_that_is_not_as_tersor_left_it_is_kept(out, bare, change):
    change(out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(FolderError, match=r"not as tersor left it.*Choose another folder"):
        write_folder(out, bare, files={})
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_file_a_link_and_a_missing_parent_are_refused(tmp_path, bare):
    (tmp_path / "file").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for name, message in (("file", "is a file"), ("link", "is a link"), ("no/out", "does not exist")):
        with pytest.raises(FolderError, match=message):
            write_folder(tmp_path / name, bare, files={})


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "/etc/x",
        "a/../b",
        "a//b",
        "./a",
        "a/",
        "a\\b",
        "a\nb",
        ".hidden",
        "x" * 200,
        "é",
        "a b",
    ],
)
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path, bare, model, name):
    with pytest.raises(ArgumentError, match="file name in the folder"):
        write_folder(tmp_path / "out", bare, files={name: model})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["report.html", "DONE.json", "run.py", "SHA256SUMS"])
def test_a_name_that_tersor_writes_is_refused(tmp_path, bare, model, name):
    with pytest.raises(ArgumentError, match="written by tersor itself"):
        write_folder(tmp_path / "out", bare, files={name: model})


def test_a_certificate_that_is_not_json_is_refused(tmp_path, bare):
    with pytest.raises(ArgumentError, match="must be JSON"):
        write_folder(tmp_path / "out", bare, files={}, certificate="{")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_source_leaves_nothing_behind(tmp_path, bare):
    with pytest.raises(FolderError, match="Nothing was changed"):
        write_folder(tmp_path / "out", bare, files={"model.onnx": tmp_path / "none"})
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_the_old_folder_and_nothing_else(out, bare, model, monkeypatch):
    before = (out / MARKER).read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(folder_module, "_flush", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder(out, bare, files={"model.onnx": model})
    assert (out / MARKER).read_bytes() == before
    assert find_faults(out) == ()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(out, bare, monkeypatch):
    rename = Path.rename

    def fails_for_the_new_one(self, target):
        if self.suffix == ".new" and Path(target).name == "out":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_for_the_new_one)
    with pytest.raises(FolderError, match="Nothing was changed"):
        write_folder(out, bare, files={})
    assert find_faults(out) == ()
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_nested_files_are_hashed_and_listed(tmp_path, bare, model):
    out = write_folder(tmp_path / "out", bare, files={"closest/model.onnx": model})
    assert "closest/model.onnx" in json.loads((out / MARKER).read_text())["files"]
    assert not (out / "run.py").exists()


def test_a_kept_folder_goes_over_whatever_it_holds_and_the_rest_is_replaced(tmp_path, model):
    out = place_folder(tmp_path / "out", {"a.txt": "1"}, {}, kept=["search"])
    (out / "search" / "deep").mkdir()
    (out / "search" / "deep" / "log.txt").write_text("line")
    assert find_faults(out) == ()
    place_folder(out, {"b.txt": "2"}, {"model.onnx": model}, kept=["search"])
    assert {path.name for path in out.iterdir()} >= {"b.txt", "model.onnx", "search"}
    assert not (out / "a.txt").exists()
    assert (out / "search" / "deep" / "log.txt").read_text() == "line"
    (out / "elsewhere.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"elsewhere\.txt"):
        place_folder(out, {}, {}, kept=["search"])


def test_rewriting_makes_the_documents_anew_and_keeps_the_rest(tmp_path, record):
    model = tmp_path / "m.onnx"
    model.write_bytes(b"model")
    folder = write_folder(
        tmp_path / "out",
        replace(record, config="[optimize]\n"),
        files={"model.onnx": model},
        certificate="{}",
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (tmp_path / "copy").mkdir()
    assert rewrite(folder) == folder
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert before == after
    assert (folder / "config.toml").read_text() == "[optimize]\n"
    assert find_faults(folder) == ()


def test_a_folder_that_was_touched_is_not_rewritten(tmp_path, bare):
    folder = write_folder(tmp_path / "out", bare, files={})
    (folder / "report.html").write_text("mine")
    with pytest.raises(FolderError, match="was changed"):
        rewrite(folder)
    assert (folder / "report.html").read_text() == "mine"
