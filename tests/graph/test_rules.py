"""Every rule against its operation: slicing the operands and running equals running and slicing the result."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tersor.graph.labels import Labels
from tersor.graph.modes import Recorder
from tersor.graph.rules.registry import RULES

A, B, C = (4, 6), (6, 5), (2, 4, 6)
IMAGE, KERNEL = (2, 6, 5, 5), (8, 6, 3, 3)
ZEROS = torch.zeros(4, 6, dtype=torch.long)

#: Name: (function of tensors that names no size, shapes, whether anything may go).
OPERATIONS = {
    "add": (torch.add, (C, C), True),
    "broadcast": (lambda a, b: a * b.sigmoid() + 1, (C, (6,)), True),
    "where": (lambda a, b, c: torch.where(a > 0, b, c), (A, A, A), True),
    "addcmul": (torch.addcmul, (A, A, A), True),
    "in place": (lambda a, b: a.clone().mul_(b).relu_(), (A, A), True),
    "transpose": (lambda a: a.transpose(0, 2), (C,), True),
    "permute": (lambda a: a.permute(2, 0, 1), (C,), True),
    "flatten": (lambda a: a.flatten(1), (C,), True),
    "squeeze and unsqueeze": (lambda a: a[:, None].squeeze(1).unsqueeze(-1), (A,), True),
    "in place squeeze": (lambda a: a.clone().unsqueeze_(0).squeeze_(0), (A,), True),
    "diagonal": (lambda a: a.diagonal(0, 1, 2), ((4, 3, 3),), True),
    "step": (lambda a: a[:, ::2], (A,), True),
    "step out of line": (lambda a: a[:, 1::4], (A,), True),
    "flip": (lambda a: a.flip(0), (A,), True),
    "halves": (lambda a: torch.cat([h.relu() for h in a.split(3, -1)], -1), (A,), False),
    "select": (lambda a: a[:, 1], (C,), True),
    "unbind": (lambda a: a.unbind(1)[0], (C,), True),
    "cat": (lambda a, b: torch.cat([a, b, a], 1), (A, (4, 3)), True),
    "stack": (lambda a, b: torch.stack([a, b], 1), (A, A), True),
    "glu": (lambda a: F.glu(a, 1), (A,), True),
    "repeat": (lambda a: a.repeat(1, 2), (A,), True),
    "matrix product": (torch.mm, (A, B), True),
    "linear": (F.linear, (C, (5, 6), (5,)), True),
    "batch product": (torch.bmm, (C, (2, 6, 5)), True),
    "einsum": (lambda a, b: torch.einsum("bij,jk->bik", a, b), (C, B), True),
    "attention": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.5),
        ((2, 3, 4, 6),) * 3,
        True,
    ),
    "convolution": (F.conv2d, (IMAGE, KERNEL, (8,)), True),
    "convolution in one dimension": (F.conv1d, ((2, 6, 9), (8, 6, 3)), True),
    "transposed convolution": (F.conv_transpose2d, (IMAGE, (6, 8, 3, 3), (8,)), True),
    "batch norm": (lambda x, m, v, w, b: F.batch_norm(x, m, v.exp(), w, b), (IMAGE, *((6,),) * 4), True),
    "instance norm": (lambda x, w, b: F.instance_norm(x, weight=w, bias=b), (IMAGE, (6,), (6,)), True),
    "sum": (lambda a: a.sum(1), (C,), True),
    "mean": (lambda a: a.mean((0, 2), keepdim=True), (C,), True),
    "norm": (lambda a: a.norm(2, -1), (C,), True),
    "amax": (lambda a: a.amax(1), (C,), True),
    "max": (lambda a: a.max(1).values, (C,), True),
    "argmax": (lambda a: a.argmax(1), (C,), True),
    "softmax": (lambda a: a.softmax(-1), (C,), True),
    "cumsum": (lambda a: a.cumsum(1), (C,), True),
    "sort": (lambda a: a.sort(1).values, (C,), True),
    "topk": (lambda a: a.topk(2, 1).values, (C,), True),
    "max pool": (lambda a: F.max_pool2d(a, 2), (IMAGE,), True),
    "average pool": (lambda a: F.adaptive_avg_pool2d(a, 1), (IMAGE,), True),
    "upsample": (lambda a: F.interpolate(a, scale_factor=2, mode="bilinear"), (IMAGE,), True),
    "pad": (lambda a: F.pad(a, (1, 2)), (C,), True),
    "grid sample": (
        lambda a, g: F.grid_sample(a, g.tanh(), align_corners=False),
        (IMAGE, (2, 3, 3, 2)),
        True,
    ),
    "pixel shuffle": (lambda a: F.pixel_shuffle(a, 2), ((2, 12, 3, 3),), True),
    "pixel unshuffle": (lambda a: F.pixel_unshuffle(a, 2), ((2, 3, 4, 4),), True),
    "unfold": (lambda a: F.unfold(a, 3), (IMAGE,), True),
    "embedding": (lambda w: F.embedding(torch.tensor([[0, 2], [1, 1]]), w), (A,), True),
    "index": (lambda a: a[:, torch.tensor([0, 2, 2])], (C,), True),
    "index with two": (lambda a: a[torch.tensor([0, 1]), torch.tensor([3, 0])], (C,), True),
    "mask": (lambda a: a[torch.tensor([True, False, True, True])], (A,), True),
    "index put": (lambda a, b: a.clone().index_put((torch.tensor([1, 0, 3]),), b), (A, (3, 6)), True),
    "index add": (lambda a, b: a.index_add(0, torch.tensor([0, 1, 0]), b), (A, (3, 6)), True),
    "gather": (lambda a: a.gather(1, torch.tensor([[0], [1], [2], [0]])), (A,), False),
    "scatter": (lambda a, b: a.scatter(0, ZEROS, b), (A, A), False),
    "roll": (lambda a: a.roll(1, 1), (C,), True),
    "masked fill": (lambda a: a.masked_fill(a > 0, 0.0), (A,), True),
    "written": (lambda a, b: a.clone().copy_(b), (A, A), True),
    "complex": (lambda a: torch.view_as_real(torch.view_as_complex(a) * 1j), ((3, 4, 2),), True),
    "solve": (lambda a, b: torch.linalg.solve(a, b), ((2, 3, 3), (2, 3, 4)), True),
    "window": (lambda a: a.contiguous().as_strided((a.shape[0], 2, 2), (a.stride(0), 1, 2)), (A,), True),
    "weight norm": (lambda v, g: torch._weight_norm(v, g, 0), (A, (4, 1)), True),
}


def traced(function, tensors):
    labels = Labels()
    for tensor in tensors:
        labels.name(tensor, [labels.fresh(size) for size in tensor.shape])
    with torch.no_grad(), Recorder(labels, set()):
        out = function(*tensors)
    return labels, out


def kept(labels, tensor, gone):
    rows = []
    for axis, size in zip(labels.of(tensor), tensor.shape, strict=True):
        lost = np.zeros(size, bool)
        for vector in axis:
            lost |= np.where(vector >= 0, gone[np.maximum(vector, 0)], False)
        rows.append(torch.from_numpy(np.flatnonzero(~lost)))
    return rows


def sliced(tensor, rows):
    for axis, index in enumerate(rows):
        tensor = tensor.index_select(axis, index)
    return tensor


@pytest.mark.parametrize("name", OPERATIONS)
def test_slicing_commutes_with_the_operation(name):
    function, shapes, may_go = OPERATIONS[name]
    torch.manual_seed(1)
    tensors = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    labels, out = traced(function, tensors)
    assert not labels.opaque
    cells = labels.cells
    free = [
        c for c in range(cells.count) if cells.parent[c] == c and not cells.refined[c] and not cells.why[c]
    ]
    chance, moved = np.random.default_rng(0), False
    for _ in range(12):
        gone = np.zeros(cells.count + 1, bool)
        gone[chance.permutation(free)[: max(1, len(free) // 4)] if free else []] = True
        rows = [kept(labels, tensor, gone) for tensor in tensors]
        if any(len(index) == 0 for one in rows for index in one):
            continue
        smaller = [sliced(t, r) for t, r in zip(tensors, rows, strict=True)]
        moved |= any(s.shape != t.shape for s, t in zip(smaller, tensors, strict=True))
        expected = sliced(out, kept(labels, out, gone))
        if name in STATISTICS:
            assert function(*smaller).shape == expected.shape
        else:
            torch.testing.assert_close(function(*smaller), expected, rtol=1e-9, atol=1e-9)
    assert moved or not may_go


#: A removed unit is left out of what these compute, so the value over the kept ones is another.
STATISTICS = {
    "sum", "mean", "norm", "amax", "softmax", "matrix product", "linear", "batch product", "einsum", "attention",
    "convolution", "convolution in one dimension", "transposed convolution", "weight norm", "average pool", "instance norm",
}  # fmt: skip


def test_an_operation_without_a_rule_freezes_all_that_it_touches():
    tensor = torch.randn(4, 4)
    labels, _ = traced(torch.linalg.eigvals, [tensor])
    assert labels.opaque
    assert all(labels.cells.why[vector].all() for axis in labels.of(tensor) for vector in axis)


def test_rules_have_names_of_operations():
    assert len(RULES) > 250
    assert all(name == name.strip() and name for name in RULES)


def test_a_recurrent_layer_in_one_operation_is_followed():
    layer = nn.LSTM(4, 6, batch_first=True)
    tensors = list(layer.parameters())
    labels = Labels()
    for tensor in tensors:
        labels.name(tensor, [labels.fresh(size) for size in tensor.shape])
    with torch.no_grad(), Recorder(labels, set()):
        out, _ = layer(torch.randn(2, 3, 4))
    hidden = labels.of(out)[-1]
    assert len(hidden) == 1
    assert not labels.cells.why[hidden[0]].any()
    assert np.array_equal(labels.of(layer.weight_hh_l0)[1][0], hidden[0])
    assert np.array_equal(labels.of(layer.weight_hh_l0)[0][0], np.tile(hidden[0], 4))
