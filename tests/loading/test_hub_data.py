"""Hugging Face data sets on disk, folders of parquet files, and tables larger than memory."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import DataError
from tersor.loading.build import build_task
from tersor.loading.data import load_data
from tersor.loading.sources import Rows, Stream

RNG = np.random.default_rng(0)


def columns(rows, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, rows))
    return {"a": a.tolist(), "b": b.tolist(), "word": ["x"] * rows, "label": (a > b).astype(int).tolist()}


def png(value):
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.new("RGB", (4, 3), (value, 0, 0)).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def test_a_saved_set_with_splits_keeps_them(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = {
        name: datasets.Dataset.from_dict(columns(30, i)) for i, name in enumerate(("train", "validation"))
    }
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "set"))
    found = load_data(f"hf:{tmp_path}/set?target=label&drop=word")
    assert list(found) == ["train", "validation"]
    x, y = found["train"].fetch(range(30))
    np.testing.assert_allclose(x, np.array([columns(30)["a"], columns(30)["b"]], np.float32).T)
    assert y.tolist() == columns(30)["label"]
    assert list(load_data(f"hf:{tmp_path}/set?target=label&drop=word&split=train")) == ["data"]
    with pytest.raises(DataError, match="no split 'tset'; it has train, validation"):
        load_data(f"hf:{tmp_path}/set?target=label&split=tset")
    with pytest.raises(DataError, match="has no option 'tagret'"):
        load_data(f"hf:{tmp_path}/set?tagret=label")


def test_a_saved_set_of_images_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict({"picture": [png(10 * i) for i in range(6)], "label": [0, 1] * 3})
    made.cast_column("picture", datasets.Image()).save_to_disk(str(tmp_path / "set"))
    found = load_data(f"hf:{tmp_path}/set?image=picture&label=label")["data"]
    x, y = found.fetch([0, 5])
    assert x.shape == (2, 3, 3, 4)
    assert float(x[1, 0, 0, 0]) == pytest.approx(50 / 255)
    assert y.tolist() == [0, 1]
    with pytest.raises(DataError, match="no column 'photo'; its columns are picture, label"):
        load_data(f"hf:{tmp_path}/set?image=photo")


def test_what_is_no_saved_set_is_refused_without_the_network(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="is no folder that save_to_disk wrote"):
        load_data(f"hf:{tmp_path}")


def parquet(path, values):
    arrow, writer = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    writer.write_table(arrow.table(values), path, row_group_size=500)


def test_a_folder_of_parquet_files_is_one_table(tmp_path):
    parquet(tmp_path / "b.parquet", columns(20, 1))
    parquet(tmp_path / "a.parquet", columns(10, 0))
    found = load_data(f"parquet:{tmp_path}?target=label&drop=word")["data"]
    assert isinstance(found, Rows)
    _, y = found.fetch(range(30))
    assert y.tolist() == columns(10, 0)["label"] + columns(20, 1)["label"]
    parquet(tmp_path / "c.parquet", {"other": [1.0]})
    with pytest.raises(DataError, match=r"'c\.parquet' has other columns"):
        load_data(f"parquet:{tmp_path}?target=label")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.parquet files"):
        load_data(f"parquet:{tmp_path}/empty")


def test_a_table_larger_than_memory_is_walked_split_and_learned_from(tmp_path):
    for i in range(3):
        parquet(tmp_path / f"{i}.parquet", columns(5000, i))
    source = load_data(f"parquet:{tmp_path}?target=label&drop=word&stream=yes")["data"]
    assert isinstance(source, Stream)
    sizes = [len(x) for x, _ in source.batches()]
    assert sum(sizes) == 15_000
    assert max(sizes) <= 4096
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
        model.bias.zero_()
    task, _ = build_task(model, f"parquet:{tmp_path}?target=label&drop=word&stream=yes")
    sizes = {name: len(getattr(task, name)) for name in ("train", "search", "certification")}
    assert sum(sizes.values()) == 15_000
    seen: set[int] = set()
    for name in sizes:
        ids = [i for batch in getattr(task, name).batches(512) for i in batch.ids]
        assert len(ids) == sizes[name]
        assert not seen & set(ids)
        seen |= set(ids)
    first = next(task.train.batches(512, shuffle=1))
    assert (model(*first.inputs).argmax(1) == first.target).float().mean() > 0.99


def test_faults_of_a_stream_are_named(tmp_path):
    parquet(tmp_path / "a.parquet", columns(10))
    with pytest.raises(DataError, match=r"'word' of 'a\.parquet' holds text"):
        list(load_data(f"parquet:{tmp_path}/a.parquet?target=label&stream=yes")["data"].batches())
    with pytest.raises(DataError, match="a stream takes numbers"):
        list(load_data(f"parquet:{tmp_path}/a.parquet?target=word&stream=yes")["data"].batches())
    with pytest.raises(DataError, match="no column 'y'"):
        load_data(f"parquet:{tmp_path}/a.parquet?target=y&stream=yes")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1xxxx")
    with pytest.raises(DataError, match="not a readable parquet file"):
        load_data(f"parquet:{tmp_path}/bad.parquet?stream=yes")
