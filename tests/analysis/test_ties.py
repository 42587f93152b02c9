"""Groups that one size in the code holds equal."""

import torch
from torch import nn

from tersor.analysis.ties import ties
from tersor.graph.trace import trace


class Projected(nn.Module):
    """One attribute stands for the features of queries and of values, as in many published models."""

    def __init__(self, count: int = 1):
        super().__init__()
        self.heads, self.features = 2, 4
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        split = lambda t: t.view(*t.shape[:2], self.heads, self.features).transpose(1, 2)
        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        return self.out((torch.softmax(q @ k.mT, -1) @ v).transpose(1, 2).flatten(2))


def test_features_that_share_an_attribute_are_tied():
    graph = trace(Projected(), (torch.randn(2, 3, 8),))
    (tied,) = ties(graph)
    assert {graph.group(name).size for name in tied} == {4}
    assert len(tied) == 2


def test_each_block_has_its_own_tie():
    graph = trace(nn.Sequential(Projected(), Projected()), (torch.randn(2, 3, 8),))
    found = ties(graph)
    assert len(found) == 2
    assert all(len({name.split(".")[0] for name in tied}) == 1 for tied in found)


class Rotated(Projected):
    """Queries and keys turn in pairs of features, so their units are pairs; values are cut one by one."""

    def forward(self, x):
        split = lambda t: t.view(*t.shape[:2], self.heads, self.features).transpose(1, 2)
        turn = lambda t: t + torch.cat([-t[..., t.shape[-1] // 2 :], t[..., : t.shape[-1] // 2]], -1)
        q, k, v = turn(split(self.q(x))), turn(split(self.k(x))), split(self.v(x))
        return self.out((torch.softmax(q @ k.mT, -1) @ v).transpose(1, 2).flatten(2))


def test_groups_of_different_sizes_may_be_tied():
    graph = trace(Rotated(), (torch.randn(2, 3, 8),))
    (tied,) = ties(graph)
    assert sorted(graph.group(name).size for name in tied) == [2, 4]
