"""Every way to hand over data, and every way to hand over something that is not."""

import csv
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from tersor.errors import DataError
from tersor.loading.data import load_data
from tersor.loading.sources import Items, Rows, Stream
from tersor.loading.stacking import leaves
from tersor.loading.survey import walk

X = np.arange(60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 4


class Squares(Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return torch.from_numpy(X[index]), int(Y[index])


class Columns:
    """The protocol of a Hugging Face dataset: rows as dicts of plain Python values."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return {"x": X[index].tolist(), "label": int(Y[index])}


class Passing(IterableDataset):
    def __iter__(self):
        yield from Squares()


class Walkable:
    """The protocol of a Hugging Face iterable dataset."""

    def __iter__(self):
        return (Columns()[i] for i in range(20))


def numbers():
    for i in range(20):
        yield X[i], Y[i]


def batches():
    for i in range(0, 20, 6):
        yield X[i : i + 6], Y[i : i + 6]


def gather(samples):
    return {key: torch.tensor([sample[key] for sample in samples]) for key in samples[0]}


def everything(source) -> tuple[np.ndarray, np.ndarray]:
    """All samples of a source as (x, y), whatever the form of its batches."""
    parts = [list(leaves(tuple(b) if isinstance(b, list) else b).values()) for b in walk(source)]
    x, y = (np.concatenate([np.asarray(p[i]) for p in parts]) for i in (0, 1))
    return x, y


FORMS = {
    "arrays": ((X, Y), Rows),
    "tensors": ((torch.from_numpy(X), torch.from_numpy(Y)), Rows),
    "list of two arrays": ([X, Y], Rows),
    "dict of arrays": ({"x": X, "label": Y}, Rows),
    "tensor dataset": (TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), Rows),
    "map-style dataset": (Squares(), Items),
    "hugging face dataset": (Columns(), Items),
    "list of samples": (list(numbers()), Items),
    "list of batches": (list(batches()), Stream),
    "loader of tensors": (DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), 7, shuffle=True), Rows),
    "loader of a dataset": (DataLoader(Squares(), 7, shuffle=True), Items),
    "loader of dicts": (DataLoader(Columns(), 7, collate_fn=gather), Items),
    "loader without batches": (DataLoader(Squares(), sampler=range(20), batch_size=5), Items),
    "iterable dataset": (Passing(), Stream),
    "loader of an iterable dataset": (DataLoader(Passing(), 7), Stream),
    "plain iterable": (Walkable(), Stream),
    "generator function of samples": (numbers, Stream),
    "generator function of batches": (batches, Stream),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_samples(form):
    data, kind = FORMS[form]
    sources = load_data(data)
    assert list(sources) == ["data"]
    assert isinstance(sources["data"], kind)
    for _ in range(2):
        x, y = everything(sources["data"])
        assert np.array_equal(x, X)
        assert np.array_equal(y, Y)


def test_pandas_goes_in_as_it_is():
    pandas = pytest.importorskip("pandas")
    x, y = everything(load_data((pandas.DataFrame(X), pandas.Series(Y)))["data"])
    assert np.array_equal(x, X)
    assert np.array_equal(y, Y)


def test_a_loader_with_a_subset_sampler_gives_only_that_subset():
    loader = DataLoader(Squares(), 4, sampler=SubsetRandomSampler([9, 2, 5]))
    assert everything(load_data(loader)["data"])[0][:, 0].tolist() == X[[2, 5, 9], 0].tolist()
    batched = DataLoader(Squares(), batch_sampler=[[3, 1], [8]])
    assert everything(load_data(batched)["data"])[0][:, 0].tolist() == X[[1, 3, 8], 0].tolist()
    assert len(load_data(DataLoader(Subset(Squares(), [1, 2]), 4))["data"]) == 2


@pytest.mark.parametrize("sampler", [RandomSampler(range(20)), WeightedRandomSampler([1.0] * 20, 5)])
def test_a_loader_with_a_random_sampler_gives_the_whole_dataset(sampler):
    assert len(load_data(DataLoader(Squares(), 4, sampler=sampler))["data"]) == 20


def test_a_collate_function_that_pads_sees_one_sample_at_a_time():
    loader = DataLoader(Squares(), 4, collate_fn=lambda samples: samples)
    assert load_data(loader)["data"].together == 1


SPLITS = {
    "pair of datasets": ((Squares(), Squares()), ["train", "validation"]),
    "pair of loaders": ((DataLoader(Squares()), DataLoader(Squares())), ["train", "validation"]),
    "pair of pairs": (((X, Y), (X, Y)), ["train", "validation"]),
    "mapping": ({"train": (X, Y), "search": (X, Y), "certification": (X, Y)}, ["train", "search", "certification"]),
    "dataset dict": ({k: Columns() for k in ("train", "validation", "test")}, ["train", "validation", "certification"]),
}  # fmt: skip


@pytest.mark.parametrize("form", SPLITS)
def test_explicit_splits_are_told_from_columns(form):
    data, names = SPLITS[form]
    assert list(load_data(data)) == names


class Broken(Squares):
    def __getitem__(self, index):
        raise KeyError("missing file")


def one_shot():
    return (pair for pair in numbers())


WRONG = {
    "number": (3, "int"),
    "none": (None, "NoneType"),
    "text": ("digits", "'sklearn:NAME'"),
    "one-shot generator": (numbers(), "only once"),
    "arrays of different length": ((X, Y[:7]), "differ in length: 7, 20"),
    "text array": (np.array(["a", "b"]), "no array of numbers"),
    "object array": ((np.array([[1], [1, 2]], dtype=object), Y[:2]), "no array of numbers"),
    "empty list": ([], "empty"),
    "empty generator": (lambda: iter(()), "empty"),
    "two validations": ({"val": (X, Y), "valid": (X, Y)}, "both the validation data"),
    "missing file": ("csv:nowhere.csv?target=y", "no data file"),
    "missing folder": ("imagefolder:nowhere", "no folder"),
    "unknown set": ("sklearn:iris", "bundles digits"),
    "unknown option": ("sklearn:digits?flatt=1", "no option 'flatt'"),
    "no file": ("npz:", "names no file"),
    "module": ("no_such_module:data", "does not import"),
    "function that fails": (f"{__name__}:nothing_here", "does not import|no attribute"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_data_is_refused_in_one_line(case):
    data, words = WRONG[case]
    with pytest.raises(DataError, match=words) as caught:
        load_data(data)
    assert "\n" not in str(caught.value)


def test_a_dataset_that_fails_says_where_and_why():
    with pytest.raises(DataError, match=r"sample 0 .*KeyError: 'missing file'"):
        next(walk(load_data(Broken())["data"]))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in [n for n in sys.modules if n.startswith("mine_")]:
        del sys.modules[name]


def test_references_to_functions_arrays_and_generators(folder):
    (folder / "mine.py").write_text(
        "import numpy as np\nx, y = np.zeros((6, 2)), np.arange(6)\npair = (x, y)\n"
        "def arrays(): return x, y\ndef stream():\n    for i in range(6): yield x[i], y[i]\n"
        "def splits(): return {'train': (x, y), 'test': (x + 1, y)}\ndef fails(): raise OSError('disk')\n"
    )
    assert isinstance(load_data("mine.py:arrays")["data"], Rows)
    assert isinstance(load_data("mine.py:pair")["data"], Rows)
    assert isinstance(load_data("mine.py:stream")["data"], Stream)
    assert list(load_data("mine.py:splits")) == ["train", "certification"]
    with pytest.raises(DataError, match="OSError: disk"):
        load_data("mine.py:fails")


def test_npz_files_of_pairs_columns_and_splits(folder):
    np.savez("pair.npz", x=X, y=Y)
    np.savez_compressed("columns.npz", image=X, label=Y)
    np.savez("splits.npz", x_train=X, y_train=Y, x_test=X + 1, y_test=Y)
    assert np.array_equal(everything(load_data("npz:pair.npz")["data"])[1], Y)
    assert set(load_data("npz:columns.npz")["data"].columns) == {"image", "label"}
    assert set(load_data("npz:splits.npz")) == {"train", "certification"}


def test_an_npz_of_objects_is_not_unpickled(folder):
    np.savez("objects.npz", x=np.array([{}, 1], dtype=object))
    with pytest.raises(DataError, match="run code"):
        load_data("npz:objects.npz")


def header_only(shape) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_an_npz_that_promises_more_than_it_holds_takes_no_memory(folder):
    with zipfile.ZipFile("bomb.npz", "w") as archive:
        archive.writestr("x.npy", header_only((10**12, 10**3)) + bytes(64))
    with pytest.raises(DataError, match="declares"):
        load_data("npz:bomb.npz")


def test_a_compressed_bomb_is_refused(folder):
    with zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header_only((10**8,)) + bytes(100 * 2**20))
    with pytest.raises(DataError, match="bomb"):
        load_data("npz:bomb.npz")


@pytest.mark.parametrize("content", [b"", b"nothing", b"PK\x05\x06" + bytes(18)])
@pytest.mark.parametrize("scheme", ["npz", "csv", "tsv", "parquet"])
def test_damaged_files_are_refused(folder, scheme, content):
    (folder / "file").write_bytes(content)
    with pytest.raises(DataError, match="file"):
        load_data(f"{scheme}:file?target=y" if scheme != "npz" else "npz:file")


def write_table(name, rows, delimiter=","):
    with Path(name).open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def test_csv_and_tsv_tables_have_numeric_features_and_any_target(folder):
    rows = [["id", "a", "b", "kind"], [1, 0.5, 2, "dog"], [2, 1.5, 3, "ant"], [3, 2.5, 4, "dog"]]
    write_table("t.csv", rows)
    write_table("t.tsv", rows, "\t")
    for reference in ("csv:t.csv?target=kind&drop=id", "tsv:t.tsv?target=kind&drop=id"):
        x, y = everything(load_data(reference)["data"])
        assert x.tolist() == [[0.5, 2], [1.5, 3], [2.5, 4]]
        assert y.tolist() == [1, 0, 1]
    write_table("s.csv", [r[:3] for r in rows], ";")
    assert everything(load_data("csv:s.csv?sep=;&target=b")["data"])[1].dtype == np.int64
    assert everything(load_data("csv:s.csv?sep=;&target=a")["data"])[1].dtype == np.float64


@pytest.mark.parametrize(
    ("rows", "query", "words"),
    [
        ([["a", "b"], [1, 2]], "target=c", "no column 'c'; its columns are a, b"),
        ([["a", "b"], ["x", 2]], "target=b", "'a'.*holds text.*drop=a"),
        ([["a", "b"], [1]], "target=b", "a row of 1 cells"),
        ([["a", "b"]], "target=b", "no rows"),
        ([["a"], [1]], "target=a", "no column left"),
        ([["a", "b"], ["x", 2]], "target=b&text=a", "tokenizer"),
    ],
)
def test_tables_that_do_not_fit_are_refused(folder, rows, query, words):
    write_table("t.csv", rows)
    with pytest.raises(DataError, match=words):
        load_data(f"csv:t.csv?{query}")


def test_a_text_column_is_tokenized(folder):
    transformers = pytest.importorskip("transformers")
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"])
    )
    transformers.BertTokenizer("vocab.txt").save_pretrained("tokenizer")
    (folder / "t.tsv").write_text("good film\t1\nbad\t0\n")
    source = load_data("tsv:t.tsv?header=no&text=0&target=1&tokenizer=tokenizer&length=8")["data"]
    tokens, labels = source.columns
    assert tokens["input_ids"].tolist() == [[2, 5, 7, 3], [2, 6, 3, 0]]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert labels.tolist() == [1, 0]


def picture(value, size=(6, 4), mode="RGB"):
    image = pytest.importorskip("PIL.Image").new(mode, size, value)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def test_a_folder_of_images_gives_scaled_pixels_and_sorted_classes(folder):
    for name, value in (("cat", (255, 0, 0)), ("ant", (0, 0, 51))):
        (folder / "set" / name).mkdir(parents=True)
        (folder / "set" / name / "1.png").write_bytes(picture(value))
        (folder / "set" / name / "notes.txt").write_text("not an image")
    source = load_data("imagefolder:set?mean=0.5&std=0.5,0.5,0.25")["data"]
    x, y = source.fetch([0, 1])
    assert x.shape == (2, 3, 4, 6)
    assert y.tolist() == [0, 1]
    assert x[0, :, 0, 0].tolist() == pytest.approx([-1, -1, (0.2 - 0.5) / 0.25])
    assert load_data("imagefolder:set?size=8,9")["data"].fetch([0])[0].shape == (1, 3, 8, 9)


def test_a_folder_of_split_folders_gives_explicit_splits(folder):
    for split in ("train", "val"):
        for name in "ab":
            (folder / "set" / split / name).mkdir(parents=True)
            (folder / "set" / split / name / "1.png").write_bytes(picture(7, mode="L"))
    sources = load_data("imagefolder:set")
    assert list(sources) == ["train", "validation"]
    assert sources["train"].fetch([0])[0].shape == (1, 1, 4, 6)


def test_parquet_images_and_tables(folder):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"image": {"bytes": picture((v, 0, 0)), "path": "x"}, "label": v} for v in (3, 1)]
    parquet.write_table(arrow.Table.from_pylist(rows), "images.parquet")
    x, y = load_data("parquet:images.parquet?image=image&label=label")["data"].fetch([0, 1])
    assert (x[:, 0, 0, 0] * 255).tolist() == pytest.approx([3, 1])
    assert y.tolist() == [3, 1]
    parquet.write_table(arrow.table({"a": [1.0, 2.0], "y": [0, 1]}), "table.parquet")
    assert everything(load_data("parquet:table.parquet?target=y")["data"])[1].tolist() == [0, 1]
    with pytest.raises(DataError, match="no column 'picture'; its columns are image, label"):
        load_data("parquet:images.parquet?image=picture")


def test_images_too_many_to_keep_are_decoded_each_time(folder, monkeypatch):
    (folder / "set" / "a").mkdir(parents=True)
    for i in range(3):
        (folder / "set" / "a" / f"{i}.png").write_bytes(picture((i, i, i)))
    kept = load_data("imagefolder:set")["data"]
    monkeypatch.setattr("tersor.loading.images._KEPT_BYTES", 1)
    read = load_data("imagefolder:set")["data"]
    assert kept.decoded is not None
    assert read.decoded is None
    assert torch.equal(kept.fetch([2, 0])[0], read.fetch([2, 0])[0])


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\nbroken", picture(0)[:45]], ids=["empty", "broken", "cut"]
)
def test_damaged_images_are_refused(folder, content):
    (folder / "set" / "a").mkdir(parents=True)
    (folder / "set" / "a" / "1.png").write_bytes(content)
    with pytest.raises(DataError, match=r"'1\.png' is not a readable image"):
        load_data("imagefolder:set")["data"].fetch([0])


def test_an_image_that_unfolds_to_hundreds_of_megapixels_is_refused(folder, monkeypatch):
    pillow = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(pillow, "MAX_IMAGE_PIXELS", 10)
    (folder / "set" / "a").mkdir(parents=True)
    (folder / "set" / "a" / "1.png").write_bytes(picture(0))
    with pytest.raises(DataError, match="DecompressionBomb"):
        load_data("imagefolder:set")


@pytest.mark.parametrize("query", ["size=0", "size=a", "size=1,2,3", "mean=1,2", "std=0"])
def test_image_options_that_cannot_be_are_refused(folder, query):
    (folder / "set" / "a").mkdir(parents=True)
    (folder / "set" / "a" / "1.png").write_bytes(picture(0))
    with pytest.raises(DataError, match=query.partition("=")[0]):
        load_data(f"imagefolder:set?{query}")


def test_images_of_different_sizes_ask_for_a_size(folder):
    (folder / "set" / "a").mkdir(parents=True)
    for i, size in enumerate(((4, 4), (5, 4))):
        (folder / "set" / "a" / f"{i}.png").write_bytes(picture(0, size))
    with pytest.raises(DataError, match="size=H,W"):
        load_data("imagefolder:set")
    assert len(load_data("imagefolder:set?size=4")["data"]) == 2


@pytest.mark.parametrize(
    ("name", "shape"), [("digits", (1, 8, 8)), ("breast_cancer", (30,)), ("wine", (13,)), ("diabetes", (10,))]
)
def test_the_sets_bundled_in_scikit_learn(name, shape):
    pytest.importorskip("sklearn")
    x, y = everything(load_data(f"sklearn:{name}")["data"])
    assert x.shape[1:] == shape
    assert len(x) == len(y)
    standard = everything(load_data(f"sklearn:{name}?standardize=true")["data"])[0]
    assert np.abs(standard.mean(axis=0)).max() < 1e-4


def test_a_file_mapped_into_memory_is_not_copied(tmp_path):
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    source = load_data((mapped, Y))["data"]
    assert source.columns[0].data_ptr() == mapped.ctypes.data
    assert source.fetch([0])[0].data_ptr() != mapped.ctypes.data
