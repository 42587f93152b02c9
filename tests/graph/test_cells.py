"""The algebra of cells: union, refinement, freezing, and reshapes against brute force."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tersor.graph.cells import FREE, Cells, partition
from tersor.graph.labels import Labels

factors = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def gone(cells, axis, removed):
    """Which indices go, entry by entry."""
    lost = []
    for index in range(len(axis[0]) if axis else 0):
        own = {int(vector[index]) for vector in cells.resolve(axis) if vector[index] >= 0}
        lost.append(bool(own & removed))
    return lost


@given(factors, st.randoms(use_true_random=False))
def test_merging_axes_loses_exactly_the_rows_of_what_is_lost(shape, random):
    labels = Labels()
    axes = [labels.fresh(size) for size in shape]
    merged = labels.reshape(axes, shape, [math.prod(shape)])[0]
    removed = {c for c in range(labels.cells.count) if random.random() < 0.3}
    own = [
        gone(labels.cells, axis, removed) or [False] * size for axis, size in zip(axes, shape, strict=True)
    ]
    expected = [any(own[k][i] for k, i in enumerate(index)) for index in np.ndindex(*shape)]
    assert (gone(labels.cells, merged, removed) or [False] * math.prod(shape)) == expected


@given(factors)
def test_splitting_an_axis_and_merging_it_again_is_the_same_axis(shape):
    labels, size = Labels(), math.prod(shape)
    axis = labels.fresh(size)
    split = labels.reshape([axis], [size], shape)
    merged = labels.reshape(split, shape, [size])[0]
    first, second = labels.cells.resolve(axis), labels.cells.resolve(merged)
    assert len(first) == len(second)
    assert all(any(np.array_equal(a, b) for b in second) for a in first)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_union_gives_the_classes_of_a_plain_search(pairs):
    cells = Cells()
    all_cells = cells.fresh(10)
    classes = [{i} for i in range(10)]
    for a, b in pairs:
        cells.union(np.array([a]), np.array([b]))
        left, right = (next(c for c in classes if i in c) for i in (a, b))
        if left is not right:
            classes.remove(right)
            left |= right
    roots = cells.roots(all_cells)
    for a in range(10):
        for b in range(10):
            assert (roots[a] == roots[b]) == any(a in c and b in c for c in classes)


def test_freezing_reaches_united_and_refined_cells():
    cells = Cells()
    a, b, rows, columns = cells.fresh(6), cells.fresh(6), cells.fresh(2), cells.fresh(3)
    cells.unify([a], [b], "")
    cells.refine(a, [np.repeat(rows, 3), np.tile(columns, 2)])
    cells.freeze([b[:1]], "held")
    assert cells.why[cells.roots(rows)].tolist() == [1, 0]
    assert cells.why[cells.roots(columns)].tolist() == [1, 0, 0]
    assert cells.reasons[1] == "held"


def test_an_axis_that_cannot_change_freezes_what_it_meets():
    cells = Cells()
    axis = cells.fresh(3)
    assert cells.unify([axis], [], "meets a wall") == []
    assert cells.why[axis].all()


def test_vectors_that_cut_an_axis_alike_are_united_and_the_rest_is_frozen():
    cells = Cells()
    heads, dims, other = cells.fresh(2), cells.fresh(3), cells.fresh(2)
    cells.unify([np.repeat(heads, 3), np.tile(dims, 2)], [np.repeat(other, 3)], "left over")
    assert np.array_equal(cells.roots(heads), cells.roots(other))
    assert cells.why[dims].all()
    assert not cells.why[cells.roots(heads)].any()


def test_an_axis_refined_twice_in_one_way_unites_the_parts():
    cells = Cells()
    axis, first, second = cells.fresh(4), cells.fresh(2), cells.fresh(2)
    for rows in (first, second):
        cells.refine(axis, [np.repeat(rows, 2), np.full(4, FREE)])
    assert np.array_equal(cells.roots(first), cells.roots(second))


def test_partitions_name_cells_by_first_appearance():
    assert partition(np.array([7, 7, 2, 7, 5])).tolist() == [0, 0, 1, 0, 2]
