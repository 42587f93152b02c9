"""Damaged files: whatever bytes change, the answer is the data or one of tersor's own errors."""

import contextlib
import io
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tersor.errors import ArgumentError, TersorError
from tersor.loading.data import load_data
from tersor.loading.limit import parse_budget, parse_drop
from tersor.loading.model import load_model
from tersor.loading.weights import read_weights


def npz(stream):
    np.savez(stream, x=np.zeros((4, 2)), y=np.arange(4))


def squeezed(stream):
    np.savez_compressed(stream, x=np.zeros((4, 2)), y=np.arange(4))


def weights(stream):
    torch.save({"weight": torch.zeros(2, 2)}, stream)


def old_weights(stream):
    torch.save({"weight": torch.zeros(2, 2)}, stream, _use_new_zipfile_serialization=False)


def tensors(stream):
    stream.write(safetensors.torch.save({"weight": torch.zeros(2, 2)}))


def table(stream):
    stream.write(b"a,b,c\n1,2,x\n3,4,y\n")


def picture(stream):
    pytest.importorskip("PIL.Image").new("RGB", (5, 4)).save(stream, "PNG")


def photo(stream):
    pytest.importorskip("PIL.Image").new("RGB", (9, 9)).save(stream, "JPEG")


def parquet(stream):
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    writer.write_table(arrow.table({"a": [1.0, 2.0], "c": [0, 1]}), stream)


FILES = {
    "d.npz": (npz, lambda f: load_data(f"npz:{f}")),
    "s.npz": (squeezed, lambda f: load_data(f"npz:{f}")),
    "w.pt": (weights, read_weights),
    "o.pt": (old_weights, read_weights),
    "w.safetensors": (tensors, read_weights),
    "t.csv": (table, lambda f: load_data(f"csv:{f}?target=c")),
    "p.png": (picture, lambda f: load_data(f"imagefolder:{f.parent.parent}?size=4")),
    "p.jpg": (photo, lambda f: load_data(f"imagefolder:{f.parent.parent}?size=4")),
    "t.parquet": (parquet, lambda f: load_data(f"parquet:{f}?target=c")),
}


@cache
def valid(name: str) -> bytes:
    stream = io.BytesIO()
    FILES[name][0](stream)
    return stream.getvalue()


changes = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)


@pytest.mark.parametrize("name", FILES)
@given(changes=changes, end=st.floats(0.0, 1.0), tail=st.binary(max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_read_or_refused(name, changes, end, tail):
    content = bytearray(valid(name))
    for place, value in changes:
        content[int(place * len(content))] = value
    content = content[: round(end * len(content))] if end < 0.8 else content
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "a" / name
        file.parent.mkdir()
        file.write_bytes(bytes(content) + tail)
        with contextlib.suppress(TersorError):
            FILES[name][1](file)


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_file_is_read(name, tmp_path):
    file = tmp_path / "a" / name
    file.parent.mkdir()
    file.write_bytes(valid(name))
    assert FILES[name][1](file)


@given(st.text(max_size=30).filter(lambda t: "/" not in t and t.strip(".")))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_reference_or_refused(text):
    for read in (load_model, load_data):
        with contextlib.suppress(TersorError):
            read(text)


@given(st.one_of(st.text(max_size=12), st.floats(), st.integers(), st.booleans(), st.none()))
@settings(max_examples=300, deadline=None)
def test_any_limit_and_budget_is_read_or_refused(value):
    for read in (parse_drop, parse_budget):
        with contextlib.suppress(ArgumentError):
            read(value)
