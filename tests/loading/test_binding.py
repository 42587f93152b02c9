"""Every form of batch that people have, and the call of `forward` that it must become."""

from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn

from tersor.errors import DataError
from tersor.loading.binding import make_binding
from tersor.loading.stacking import leaves, stack

X, X2, Y = torch.randn(4, 3), torch.randn(4, 2), torch.arange(4)
IDS, MASK = torch.ones(4, 6, dtype=torch.int64), torch.ones(4, 6, dtype=torch.int64)
BOTH = {"input_ids": IDS, "attention_mask": MASK}


class One(nn.Module):
    def forward(self, x):
        return x


class OneMore(nn.Module):
    def forward(self, x, scale=1.0):
        return x * scale


class Two(nn.Module):
    def forward(self, a, b):
        return a, b


class Text(nn.Module):
    def forward(self, input_ids=None, attention_mask=None, labels=None):
        return input_ids


class Many(nn.Module):
    def forward(self, *tensors):
        return tensors


class Keywords(nn.Module):
    def forward(self, **tensors):
        return tensors


FORMS = {
    "tensor": (One, X, (X,), None),
    "pair": (One, (X, Y), (X,), Y),
    "list": (One, [X, Y], (X,), Y),
    "arrays": (One, (X.numpy(), Y.numpy()), (X,), Y),
    "single tuple": (One, (X,), (X,), None),
    "two inputs and target": (Two, (X, X2, Y), (X, X2), Y),
    "two inputs, no target": (Two, (X, X2), (X, X2), None),
    "nested": (Two, ((X, X2), Y), (X, X2), Y),
    "nested lists": (Two, [[X, X2], Y], (X, X2), Y),
    "optional parameter": (OneMore, (X, Y), (X,), Y),
    "star arguments": (Many, (X, X2, Y), (X, X2), Y),
    "dict by name": (Two, {"b": X2, "a": X, "label": Y}, {"a": X, "b": X2}, Y),
    "dict of another name": (One, {"image": X, "label": Y}, (X,), Y),
    "dict with more keys": (One, {"x": X, "index": Y, "label": Y}, {"x": X}, Y),
    "dict and target": (Text, (BOTH, Y), BOTH, Y),
    "hugging face": (Text, UserDict(**BOTH, labels=Y), BOTH, Y),
    "label_ids": (Text, {"input_ids": IDS, "label_ids": Y}, {"input_ids": IDS}, Y),
    "dict without target": (Text, {"input_ids": IDS}, {"input_ids": IDS}, None),
    "text beside numbers": (Text, {"input_ids": IDS, "sentence": ["a"] * 4, "label": Y}, {"input_ids": IDS}, Y),
    "keywords": (Keywords, {"a": X, "b": X2, "target": Y}, {"a": X, "b": X2}, Y),
}  # fmt: skip


def same(left, right):
    if isinstance(right, dict):
        return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in right)
    return len(left) == len(right) and all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_is_bound_to_forward(form):
    model, batch, inputs, target = FORMS[form]
    binding = make_binding(model(), batch)
    got_inputs, got_target = binding.bind(batch)
    assert type(got_inputs) is type(inputs)
    assert same(got_inputs, inputs)
    assert (got_target is None) == (target is None)
    assert target is None or torch.equal(got_target, target)
    assert binding.words()


def test_the_words_show_what_goes_where_and_what_goes_nowhere():
    binding = make_binding(Text(), {"input_ids": IDS, "sentence": ["a"] * 4, "label": Y})
    assert binding.words() == (
        "input_ids <- batch['input_ids'] int64[N, 6]",
        "target <- batch['label'] int64[N]",
        "not used: batch['sentence']",
    )


def test_floats_take_the_type_of_the_parameters_and_bytes_become_floats():
    binding = make_binding(nn.Linear(3, 2), (X.double(), Y.int()))
    inputs, target = binding.bind((X.double(), Y.int()))
    assert (inputs[0].dtype, target.dtype) == (torch.float32, torch.int64)
    pixels = (torch.zeros(4, 3, dtype=torch.uint8), Y)
    assert make_binding(nn.Linear(3, 2), pixels).bind(pixels)[0][0].dtype == torch.float32


def test_a_target_can_be_named():
    batch = {"x": X, "species": Y}
    assert torch.equal(make_binding(One(), batch, target="species").bind(batch)[1], Y)
    pair = (Y, X)
    inputs, target = make_binding(One(), pair, target="0").bind(pair)
    assert torch.equal(inputs[0], X)
    assert torch.equal(target, Y)
    with pytest.raises(DataError, match="'species'"):
        make_binding(One(), {"x": X}, target="species")


@pytest.mark.parametrize(
    ("model", "batch", "words"),
    [
        (Two, X, "does not fit forward"),
        (Two, {"a": X, "c": X2, "label": Y}, "'b' is missing"),
        (One, {"image": X, "depth": X2, "label": Y}, "do not fit forward"),
        (One, (["a", "b"], torch.zeros(2)), "token numbers"),
        (One, {"sentence": ["a", "b"], "label": torch.zeros(2)}, "'x' is missing"),
        (One, (X, X2, X, Y), "does not fit forward"),
        (One, {}, "do not fit"),
        (One, 3, "batch axis"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_with_both_sides_named(model, batch, words):
    with pytest.raises(DataError, match=words):
        make_binding(model(), batch)


def test_parts_of_different_length_are_refused():
    binding = make_binding(One(), (X, Y))
    with pytest.raises(DataError, match="differ in their number of samples"):
        binding.bind((X, Y[:3]))


def test_a_later_batch_of_another_form_is_refused():
    binding = make_binding(One(), {"x": X, "label": Y})
    with pytest.raises(DataError, match="lacks"):
        binding.bind({"x": X})


def test_stacking_keeps_vectors_whole_and_text_as_lists():
    batch = stack([{"ids": [1, 2, 3], "text": "a", "label": 0}, {"ids": [4, 5, 6], "text": "b", "label": 1}])
    assert batch["ids"].shape == (2, 3)
    assert batch["text"] == ["a", "b"]
    assert batch["label"].tolist() == [0, 1]


def test_stacking_takes_images_and_numpy_scalars():
    image = pytest.importorskip("PIL.Image").new("RGB", (5, 4))
    batch = stack([(image, np.int64(3)), (image, np.int64(4))])
    assert batch[0].shape == (2, 4, 5, 3)
    assert batch[1].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([[1, 2], [1, 2, 3]], "different shapes"),
        ([{"a": 1}, {"b": 1}], "keys"),
        ([(torch.zeros(1), 1), (torch.zeros(1),)], "length"),
    ],
)
def test_samples_that_do_not_stack_are_refused(samples, words):
    with pytest.raises(DataError, match=words):
        stack(samples)


def test_leaves_are_named_by_their_path():
    assert list(leaves({"a": (1, {"b": 2}), "c": 3})) == [("a", 0), ("a", 1, "b"), ("c",)]
