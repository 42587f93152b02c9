"""One real search that many tests look at: a perceptron on the digits, one cut, one integer twin of each."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tersor.cli.digits import Perceptron, split_digits
from tersor.search import answer, baseline, effort, ending
from tersor.search.optimize import optimize


def trained_perceptron(samples, hidden=96):
    torch.manual_seed(0)
    network = Perceptron(hidden)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    images, labels = (torch.from_numpy(array) for array in samples)
    for _ in range(12):
        for index in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[index]), labels[index]).backward()
            optimizer.step()
    return network


@pytest.fixture(scope="session", autouse=True)
def brief_measurements():
    """Let searches measure briefly: what they decide is tested here, and not how finely they tell speeds apart."""
    _, brief, quick, quickest = ending.PACES
    with pytest.MonkeyPatch.context() as patch:
        for module in (answer, ending):
            patch.setattr(module, "PACES", (brief, brief, quick, quickest))
        patch.setattr(baseline, "PACES", (quick, quick, quick, quickest))
        yield


@pytest.fixture(scope="session")
def digits():
    return split_digits()


@pytest.fixture(scope="session")
def perceptron(digits):
    return trained_perceptron(digits["train"])


@pytest.fixture(scope="session")
def small_search(perceptron, digits):
    """Return a function that runs a short search and keeps what it said."""

    def search(**options):
        said = []
        shares, effort.FINE = effort.FINE, (0.4,)
        try:
            result = optimize(
                perceptron,
                digits,
                max_drop=0.03,
                **{"goal": "size", "methods": ("prune", "quantize", "distill"), "on_event": said.append}
                | options,
            )
        finally:
            effort.FINE = shares
        return SimpleNamespace(result=result, said=said)

    return search


@pytest.fixture(scope="session")
def found(small_search):
    return small_search()
