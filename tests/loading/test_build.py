"""From a model and data to a Task: what is decided, what is said, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tersor.errors import ArgumentError, DataError, ModelError
from tersor.loading.build import build_task
from tersor.loading.evaluate import Loader, evaluate
from tersor.loading.inputs import call, main_output
from tersor.loading.split import Shares

PARTS = ("train", "calibration", "search", "certification")


def blobs(n=1500, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return (rng.normal(size=(n, 5)) + y[:, None]).astype(np.float32), y


def net(outputs=3, *last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, outputs), *last)


def ids(split, **options):
    return [i for batch in split.batches(64, **options) for i in batch.ids]


def test_one_data_set_becomes_disjoint_parts_that_together_are_everything():
    task, notes = build_task(net(), blobs())
    train, search, sealed = (set(ids(getattr(task, name))) for name in ("train", "search", "certification"))
    assert len(train | search | sealed) == len(train) + len(search) + len(sealed) == 1500
    assert set(ids(task.calibration)) < train
    assert len(task.calibration) == 256
    assert any("one data set" in line for line in notes.words())


def test_batches_are_deterministic_and_shuffle_and_limit_do_what_they_say():
    task, _ = build_task(net(), blobs())
    stored = ids(task.train)
    assert ids(task.train) == stored
    assert ids(task.train, limit=10) == stored[:10]
    assert ids(task.train, shuffle=1) == ids(task.train, shuffle=1) != ids(task.train, shuffle=2)
    assert sorted(ids(task.train, shuffle=1)) == sorted(stored)
    assert len(ids(task.train, shuffle=1, limit=7)) == 7
    sizes = [len(batch.ids) for batch in task.search.batches(50)]
    assert sizes[:-1] == [50] * (len(sizes) - 1)


def test_ids_name_the_samples():
    x, y = blobs()
    task, _ = build_task(net(), (x, y))
    for batch in task.certification.batches(32, shuffle=3, limit=64):
        assert np.array_equal(batch.inputs[0].numpy(), x[list(batch.ids)])
        assert np.array_equal(batch.target.numpy(), y[list(batch.ids)])


@given(st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_data_does_not_decide_who_is_sealed(seed):
    x, y = blobs(400)
    order = np.random.default_rng(seed).permutation(len(x))
    first, second = build_task(net(), (x, y)).task, build_task(net(), (x[order], y[order])).task
    for name in PARTS:
        assert getattr(first, name).digest() == getattr(second, name).digest()


def test_the_seed_draws_calibration_and_leaves_the_split_alone():
    data = blobs()
    first, second = build_task(net(), data, seed=0).task, build_task(net(), data, seed=1).task
    assert first.certification.digest() == second.certification.digest()
    assert first.calibration.digest() != second.calibration.digest()


def test_the_model_is_neither_changed_nor_shared():
    model = net(3, nn.BatchNorm1d(3)).train()
    before = copy.deepcopy(model.state_dict())
    task, _ = build_task(model, blobs())
    assert model.training
    assert not task.model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in task.model.parameters()}


def test_the_example_inputs_are_two_real_samples():
    x, y = blobs()
    task, _ = build_task(net(), (x, y))
    assert task.inputs[0].shape == (2, 5)
    assert all(any(np.array_equal(row, other) for other in x) for row in task.inputs[0].numpy())


class Segmenter(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv = nn.Conv2d(1, classes, 3, padding=1)

    def forward(self, x):
        return {"out": self.conv(x)}


class Tagger(nn.Module):
    def __init__(self, vocabulary=20, classes=4):
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary, 8), nn.Linear(8, classes)

    def forward(self, input_ids, attention_mask=None):
        return {"logits": self.head(self.embed(input_ids))}


class Embedder(Tagger):
    def forward(self, input_ids):
        return {"last_hidden_state": self.embed(input_ids).mean(1)}


class Sized(Dataset):
    """Token sequences of different lengths: only a collate function can stack them."""

    def __len__(self):
        return 400

    def __getitem__(self, index):
        g = torch.Generator().manual_seed(index)
        return torch.randint(1, 20, (3 + index % 4,), generator=g)


def padded(samples):
    ids_ = nn.utils.rnn.pad_sequence(samples, batch_first=True)
    return {
        "input_ids": ids_,
        "attention_mask": (ids_ > 0).long(),
        "labels": torch.where(ids_ > 0, ids_ % 4, -100),
    }


def tokens(n=400, length=6):
    return torch.randint(20, (n, length), generator=torch.Generator().manual_seed(0))


def images(n=300):
    return torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(0))


X, Y = blobs()
T, PIXELS = tokens(), images()
KINDS = {
    "classes": (net(), (X, Y), "classification", "accuracy"),
    "one-hot": (net(), (X, np.eye(3)[Y]), "classification", "accuracy"),
    "binary logit": (net(1), (X, Y % 2), "classification", "accuracy"),
    "binary float": (net(1, nn.Sigmoid()), (X, (Y % 2)[:, None].astype(np.float32)), "classification", "accuracy"),
    "two logits, float labels": (net(2), (X, (Y % 2).astype(np.float64)), "classification", "accuracy"),
    "multilabel": (net(3), (X, (X[:, :3] > 0).astype(int)), "multilabel", "accuracy"),
    "regression": (net(1), (X, X.sum(1)), "regression", "mse"),
    "whole-number regression": (net(1), (X, Y), "regression", "mse"),
    "many values": (net(4), (X, X[:, :4]), "regression", "mse"),
    "segmentation": (Segmenter(3), (PIXELS, PIXELS[:, 0].clamp(0, 2).long()), "segmentation", "accuracy"),
    "masks": (Segmenter(1), (PIXELS, (PIXELS > 0).float()), "segmentation", "accuracy"),
    "tokens": (Tagger(), {"input_ids": T, "labels": T % 4}, "tokens", "accuracy"),
    "language": (Tagger(classes=20), {"input_ids": T, "labels": T}, "language", "accuracy"),
    "language, shifted by the data": (Tagger(classes=20), (T[:, :-1], T[:, 1:]), "language", "accuracy"),
    "no labels, classes": (net(), X, "fidelity", "agreement"),
    "no labels, vectors": (Embedder(), {"input_ids": T}, "fidelity", "cosine"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_the_kind_of_task_and_the_metric_are_inferred_and_said(name):
    model, data, kind, metric = KINDS[name]
    task, notes = build_task(model, data)
    assert (task.kind, task.metric.name) == (kind, metric)
    assert any(kind in line for line in notes.words())
    assert any(line.startswith("metric") and metric in line for line in notes.words())
    value = evaluate(task.metric, task.model, task.search)
    assert np.isfinite(value)
    batch = next(task.train.batches(16, shuffle=0))
    loss = task.loss(main_output(call(task.model, batch.inputs)), batch.target)
    assert loss.ndim == 0
    assert torch.isfinite(loss)


def test_only_language_targets_that_repeat_the_inputs_are_shifted():
    assert build_task(*KINDS["language"][:2]).notes.setting.shifted
    assert not build_task(*KINDS["language, shifted by the data"][:2]).notes.setting.shifted


@pytest.mark.parametrize(
    ("last", "activation"),
    [
        ((), "none"),
        ((nn.Sigmoid(),), "sigmoid"),
        ((nn.Sigmoid(), nn.Flatten(0)), "sigmoid"),
        ((nn.Softplus(),), "none"),
    ],
)
@pytest.mark.parametrize("frozen", [True, False])
def test_the_last_activation_is_seen_through_reshapes_and_without_gradients(last, activation, frozen):
    model = net(1, *last)
    model.requires_grad_(not frozen)
    model[2].weight.data *= 5
    assert build_task(model, (X, Y % 2)).notes.setting.activation == activation


def test_logits_that_happen_to_lie_between_zero_and_one_are_not_probabilities():
    model = net(1, nn.Flatten(0))
    model[2].weight.data *= 0.01
    model[2].bias.data.fill_(0.4)
    assert build_task(model, (X, Y % 2)).notes.setting.activation == "none"


def test_the_mission_s_perceptron_gets_binary_cross_entropy_on_probabilities():
    task, notes = build_task(net(1, nn.Sigmoid()), (X, Y % 2))
    assert notes.loss.startswith("bce on probabilities")
    output, target = torch.tensor([[0.25], [0.5]]), torch.tensor([0, 1])
    assert task.loss(output, target) == pytest.approx((-np.log(0.75) - np.log(0.5)) / 2)


def test_without_labels_the_original_s_outputs_are_the_targets_and_it_is_said_loudly():
    task, notes = build_task(net(), X)
    batch = next(task.certification.batches(8))
    assert torch.allclose(batch.target, task.model(batch.inputs[0]))
    assert evaluate(task.metric, task.model, task.certification) == 1.0
    assert evaluate(task.metric, net(3, nn.Softmin(1)), task.certification) < 1.0
    assert any("NO LABELS" in line for line in notes.words())
    assert notes.warnings


def test_bounds_of_regression_scores_do_not_look_at_sealed_targets():
    y = np.linspace(0, 1, 1500).astype(np.float32)
    plain = build_task(net(1), (X, y)).task
    sealed = ids(plain.certification)
    spiked = y.copy()
    spiked[sealed[0]] = 100.0
    assert build_task(net(1), (X, spiked)).task.metric.bounds == plain.metric.bounds


class Passing(IterableDataset):
    def __init__(self, n=1500):
        self.n = n

    def __iter__(self):
        yield from zip(X[: self.n], Y[: self.n].tolist(), strict=True)


STREAMS = {
    "samples": Passing(),
    "loader": DataLoader(Passing(), 64),
    "batches": lambda: ((X[i : i + 64], Y[i : i + 64]) for i in range(0, 1500, 64)),
}


@pytest.mark.parametrize("form", STREAMS)
def test_a_stream_is_split_like_the_same_data_in_memory(form):
    streamed, stored = build_task(net(), STREAMS[form]).task, build_task(net(), (X, Y)).task
    for name in ("train", "search", "certification"):
        a, b = getattr(streamed, name), getattr(stored, name)
        assert len(a) == len(b) == len(ids(a))
        assert a.digest() == b.digest()
    assert evaluate(stored.metric, stored.model, streamed.search) == pytest.approx(
        evaluate(stored.metric, stored.model, stored.search)
    )


def test_a_shuffled_stream_gives_every_sample_once_with_its_number():
    task, _ = build_task(net(), Passing())
    stored, shuffled = ids(task.train), ids(task.train, shuffle=5)
    assert stored != shuffled
    assert sorted(stored) == sorted(shuffled)
    assert shuffled == ids(task.train, shuffle=5)
    assert len(set(stored)) == len(stored)


def test_padding_by_a_collate_function_does_not_change_the_split():
    batch_of_four = build_task(Tagger(), DataLoader(Sized(), 4, collate_fn=padded)).task
    batch_of_nine = build_task(Tagger(), DataLoader(Sized(), 9, collate_fn=padded, shuffle=True)).task
    assert batch_of_four.certification.digest() == batch_of_nine.certification.digest()
    widths = {batch.inputs["input_ids"].shape[1] for batch in batch_of_four.train.batches(8)}
    assert widths <= {3, 4, 5, 6}


class PassingSized(IterableDataset):
    def __iter__(self):
        yield from (Sized()[i] for i in range(400))


def test_padding_does_not_change_the_split_of_a_stream_either():
    streamed = build_task(Tagger(), DataLoader(PassingSized(), 9, collate_fn=padded)).task
    stored = build_task(Tagger(), DataLoader(Sized(), 4, collate_fn=padded)).task
    assert streamed.certification.digest() == stored.certification.digest()


def test_explicit_splits_are_used_as_they_are():
    (x1, y1), (x2, y2), (x3, y3) = blobs(300, seed=1), blobs(200, seed=2), blobs(100, seed=3)
    task, notes = build_task(net(), {"train": (x1, y1), "validation": (x2, y2), "test": (x3, y3)})
    assert [len(getattr(task, name)) for name in PARTS] == [300, 256, 200, 100]
    assert not any("one data set" in line for line in notes.words())
    everything = [i for name in ("train", "search", "certification") for i in ids(getattr(task, name))]
    assert len(set(everything)) == 600


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train", "validation"), {"train": 400, "calibration": 256}),
        (("train", "test"), {"certification": 400}),
        (("search", "certification"), {"train": 0, "search": 400, "certification": 400}),
        (("train", "calibration", "search", "certification"), dict.fromkeys(PARTS, 400)),
        (("train",), {}),
    ],
)
def test_missing_splits_are_taken_from_the_right_place(names, parts):
    data = {name: blobs(400, seed=k) for k, name in enumerate(names)}
    task, _ = build_task(net(), data)
    assert {name: len(getattr(task, name)) for name in parts} == parts
    used = sum(len(getattr(task, name)) for name in ("train", "search", "certification"))
    assert used == 400 * len([n for n in names if n != "calibration"])


def test_sealed_samples_that_were_given_for_training_too_are_refused():
    x, y = blobs(300)
    x2, y2 = blobs(200, seed=2)
    x2[17] = x[40]
    with pytest.raises(DataError, match=r"1 distinct samples .* also in the train data.*number 17"):
        build_task(net(), {"train": (x, y), "test": (x2, y2)})


@pytest.mark.parametrize("name", ["validation", "search"])
def test_copies_in_a_set_that_is_still_to_be_split_are_refused_too(name):
    x, y = blobs(300)
    with pytest.raises(DataError, match=r"also in the train data"):
        build_task(net(), {"train": (x, y), name: (x[:250], y[:250])})


def test_copies_of_sealed_samples_can_be_left_out():
    x, y = blobs(300)
    x2, y2 = blobs(200, seed=2)
    x2[17], x[41] = x[40], x[40]
    shares = Shares(leave_out_copies=True)
    task, notes = build_task(net(), {"train": (x, y), "test": (x2, y2)}, shares=shares)
    assert len(task.certification) == 200
    assert len(task.train) + len(task.search) == 298
    assert not {40, 41} & set(ids(task.train) + ids(task.search))
    assert any("2 train samples left out" in line for line in notes.words())


def test_search_samples_that_are_in_train_are_remarked_on():
    x, y = blobs(300)
    sealed = blobs(200, seed=2)
    _, notes = build_task(net(), {"train": (x, y), "search": (x[:50], y[:50]), "certification": sealed})
    assert any("50 search samples are also in train" in line for line in notes.words())


def test_copies_inside_one_data_set_stay_in_one_part_and_are_counted():
    x, y = blobs(500)
    task, notes = build_task(net(), (np.tile(x, (2, 1)), np.tile(y, 2)))
    for name in ("train", "search", "certification"):
        assert {i % 500 for i in ids(getattr(task, name))} == {i for i in ids(getattr(task, name)) if i < 500}
    assert any("500 of the 1,000 data samples are copies" in line for line in notes.words())


class Noisy(Dataset):
    def __len__(self):
        return 300

    def __getitem__(self, index):
        return torch.from_numpy(X[index]) + torch.randn(5), int(Y[index])


def test_random_augmentation_is_accepted_in_train_only():
    task, notes = build_task(net(), (Noisy(), blobs(300, seed=5)))
    assert len(task.train) == 300
    assert any("changes between reads" in line for line in notes.words())
    with pytest.raises(DataError, match="augmentation"):
        build_task(net(), Noisy())


def test_shares_can_be_chosen():
    task, _ = build_task(net(), blobs(), shares=Shares(search=0.2, certification=0.5, calibration=32))
    assert len(task.calibration) == 32
    assert abs(len(task.certification) - 750) <= 3
    assert abs(len(task.search) - 300) <= 3


def test_a_metric_of_the_model_gets_the_batches_that_training_scripts_know():
    def score(model, loader):
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in loader)
        return right / sum(len(y) for _, y in loader)

    task, _ = build_task(net(), blobs(), metric=score)
    plain, _ = build_task(net(), blobs())
    assert evaluate(task.metric, task.model, task.search) == pytest.approx(
        evaluate(plain.metric, plain.model, plain.search)
    )
    assert len(Loader(task.search, 50)) == len(list(Loader(task.search, 50)))
    assert isinstance(next(iter(Loader(build_task(net(), X).task.search))), tuple)


def test_metrics_that_do_not_decompose_are_taken_over_the_whole_split():
    task, _ = build_task(net(), blobs(), metric="f1")
    batch = next(task.search.batches(10_000))
    whole = task.metric.value(task.model(batch.inputs[0]), batch.target)
    assert evaluate(task.metric, task.model, task.search, size=7) == pytest.approx(whole)


def nan_at(row):
    x, y = blobs(300)
    x[row, 2] = np.nan
    return x, y


class Fails(nn.Module):
    def forward(self, x):
        raise RuntimeError("the third layer\nis missing")


class Uncopyable(nn.Linear):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle a lock")


class LossReturning(nn.Linear):
    def forward(self, x):
        return super().forward(x).mean()


def poisoned():
    model = net()
    model[2].bias.data[1] = float("nan")
    return model


WRONG = {
    "forward fails": (Fails, (X, Y), {}, ModelError, r"of Fails failed.*\[8, 5\].*RuntimeError: the third"),
    "wrong width": (lambda: nn.Linear(4, 3), (X, Y), {}, ModelError, "failed on the first batch"),
    "uncopyable": (lambda: Uncopyable(5, 3), (X, Y), {}, ModelError, "cannot be copied"),
    "returns a loss": (lambda: LossReturning(5, 3), (X, Y), {}, ModelError, "must be the batch"),
    "nan in the weights": (poisoned, (X, Y), {}, ModelError, "NaN or infinite numbers on"),
    "labels out of range": (lambda: net(2), (X, Y), {}, DataError, "Label 2 is out of range: .* 2 classes"),
    "negative labels": (net, (X, Y - 1), {}, DataError, "Label -1 is out of range"),
    "one class": (net, (X, 0 * Y), {}, DataError, "Every label"),
    "constant target": (lambda: net(1), (X, 0.5 + 0 * X[:, 0]), {}, DataError, "Every target"),
    "nan in the data": (net, nan_at(17), {}, DataError, "'input', first sample 17"),
    "infinite target": (lambda: net(1), (X, np.where(Y == 0, np.inf, 1.0)), {}, DataError, "'target', first"),
    "empty": (net, (X[:0], Y[:0]), {}, DataError, "empty"),
    "one sample": (net, (X[:1], Y[:1]), {}, DataError, "would be empty"),
    "empty explicit split": (net, {"train": (X, Y), "test": (X[:0], Y[:0])}, {}, DataError, "empty"),
    "only calibration": (net, {"calibration": (X, Y)}, {}, DataError, "nothing to search or certify"),
    "target of another shape": (net, (X, X[:, :2]), {}, DataError, r"shape \[2\].*of shape \[3\]"),
    "unknown metric": (net, (X, Y), {"metric": "acuracy"}, ArgumentError, "Did you mean 'accuracy'"),
    "metric of another task": (net, (X, Y), {"metric": "mse"}, ArgumentError, "for regression"),
    "metric that fails": (net, (X, Y), {"metric": lambda preds, target: preds.no}, ArgumentError, "AttributeError"),
    "metric reference": (net, (X, Y), {"metric": "no_module:f"}, ArgumentError, "does not import"),
    "unknown loss": (net, (X, Y), {"loss": "crossentropy"}, ArgumentError, "Did you mean 'cross_entropy'"),
    "loss that fails": (net, (X, Y), {"loss": nn.BCELoss()}, ArgumentError, "The loss 'given' failed"),
    "unknown target": (net, {"input": X, "label": Y}, {"target": "kind"}, DataError, "'kind' is not in the batch"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_answered_by_one_clear_sentence(case):
    model, data, options, error, words = WRONG[case]
    with pytest.raises(error, match=words) as caught:
        build_task(model(), data, **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_digits_by_name_make_a_task():
    pytest.importorskip("sklearn")
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    task, _ = build_task(model, "sklearn:digits")
    assert sum(len(getattr(task, name)) for name in ("train", "search", "certification")) == 1797
    labels = {name: np.concatenate([b.target for b in getattr(task, name).batches(500)]) for name in PARTS}
    for name in ("train", "search", "certification"):
        share = np.bincount(labels[name], minlength=10) / len(labels[name])
        assert np.abs(share - 0.1).max() < 0.012


@pytest.mark.slow
def test_a_hugging_face_model_takes_a_dataset_of_token_lists():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=3,
    )
    rows = [
        {"input_ids": row, "attention_mask": [1] * 6, "sentence": "text", "label": row[0] % 3}
        for row in T.tolist()
    ]
    task, notes = build_task(transformers.BertForSequenceClassification(config), rows)
    assert (task.kind, task.metric.name) == ("classification", "accuracy")
    assert "not used: batch['sentence']" in notes.binding.words()
    assert 0 <= evaluate(task.metric, task.model, task.search) <= 1
