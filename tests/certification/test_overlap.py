"""Overlapping splits: copies and near copies are found, other samples are not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from tersor.certification.overlap import Overlap, check_disjoint, fingerprint, overlaps
from tersor.errors import DataError

TEXT = (
    "the film is a stirring , funny and finally transporting re imagining of beauty and the beast , "
    "told with patience and with more wit than anyone had a right to expect"
)


def photographs(count: int, seed: int = 0) -> np.ndarray:
    """Random smooth images, (count, 3, 32, 32): neighbouring pixels are alike, as in photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 3, 8, 8))
    smooth = np.kron(coarse, np.ones((4, 4)))
    return 128 + 40 * (smooth + np.roll(smooth, 2, axis=2) + np.roll(smooth, 2, axis=3)) / 2


CHANGES = {
    "noise": lambda x: x + np.random.default_rng(1).normal(0, 4, x.shape),
    "brighter": lambda x: x + 20,
    "contrast": lambda x: 0.7 * x,
    "rounded": lambda x: np.round(x / 16) * 16,
    "a pixel": lambda x: np.where(np.indices(x.shape)[1:].sum(0) == 0, 0, x),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_images_are_found_where_they_are(change):
    images, others = photographs(40), photographs(40, seed=9)
    second = [*others[:20], *(change(image) for image in images[::2])]
    found = overlaps(images, second)
    assert [(overlap.first, overlap.second) for overlap in found] == [(2 * i, 20 + i) for i in range(20)]
    assert not any(overlap.exact for overlap in found)


def test_different_images_do_not_overlap():
    assert overlaps(photographs(300), photographs(300, seed=9)) == ()


def test_different_handwritten_digits_do_not_overlap():
    images = load_digits().images
    assert overlaps(images[:900], images[900:]) == ()


def test_equal_samples_are_exact_and_equal_values_of_another_type_are_near():
    image = photographs(1)[0]
    assert overlaps([image], [image + 100, image]) == (Overlap(0, 1, True),)
    assert overlaps([image], [image.astype(np.float32)]) == (Overlap(0, 0, False),)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (TEXT.upper(), True),
        (TEXT.replace(" , ", ", "), True),
        (TEXT.replace("stirring", "moving"), True),
        (" ".join(sorted(TEXT.split())), False),
        (" ".join(TEXT.split()[: len(TEXT.split()) // 2]), False),
        ("", False),
    ],
)
def test_texts_with_a_changed_word_are_found_and_rewritten_ones_are_not(change, found):
    assert bool(overlaps([TEXT], ["another sentence about something else entirely", change])) is found


def test_token_ids_are_compared_as_text():
    ids = np.random.default_rng(0).integers(100, 5000, size=40)
    changed = ids.copy()
    changed[20] = 7
    assert overlaps([ids], [changed]) == (Overlap(0, 0, False),)
    assert overlaps([ids], [np.sort(ids)]) == ()


def test_bytes_are_compared_exactly():
    assert overlaps([b"abc", b"abd"], [b"abd", b"abe"]) == (Overlap(1, 0, True),)


@pytest.mark.parametrize(
    "sample", [np.zeros((3, 8, 8)), np.array([1.0]), np.array(2.0), np.full((4, 4), np.nan), "", b"x" * 99]
)
def test_samples_without_structure_have_no_fingerprint_but_equal_hashes(sample):
    assert fingerprint(sample) is None
    assert overlaps([sample], [sample]) == (Overlap(0, 0, True),)


@given(st.integers(0, 10**6), st.floats(0.1, 10), st.floats(-100, 100))
@settings(max_examples=30, deadline=None)
def test_fingerprints_do_not_depend_on_brightness_and_contrast(seed, gain, offset):
    image = photographs(1, seed)[0]
    assert (fingerprint(image) ^ fingerprint(gain * image + offset)).bit_count() <= 2


def test_overlapping_splits_are_refused_with_names_and_numbers(make_split):
    images = torch.from_numpy(photographs(30))
    check_disjoint([make_split(images[:20], "train"), make_split(images[20:], "certification")])
    near = images[:20] + 1
    with pytest.raises(
        DataError, match=r"3 of 20 train samples are also in certification \(2 exactly, 1 nearly"
    ):
        check_disjoint(
            [
                make_split(near, "train"),
                make_split(torch.cat([near[:2], images[5:6], images[25:]]), "certification"),
            ]
        )
