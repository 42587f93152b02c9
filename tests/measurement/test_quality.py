from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from tersor.errors import MeasurementError
from tersor.loading.metric import Metric
from tersor.loading.task import Batch
from tersor.measurement.quality import evaluate, predict

X = torch.randn(10, 4)
Y = torch.arange(10) % 4


@dataclass(frozen=True)
class Rows:
    """A split of the first `count` rows of X."""

    count: int = 10
    name: str = "search"

    def __len__(self):
        return self.count

    def batches(self, size, *, shuffle=None, limit=None) -> Iterator[Batch]:
        for start in range(0, self.count, size):
            rows = range(start, min(start + size, self.count))
            yield Batch((X[list(rows)],), Y[list(rows)], tuple(rows))


def identity(inputs):
    return (inputs[0], np.zeros(1))


def correct(outputs, targets):
    return (outputs.argmax(1) == targets).double()


ACCURACY = Metric("accuracy", lambda o, t: correct(o, t).mean().item(), correct)
WHOLE = Metric("accuracy", lambda o, t: correct(o, t).mean().item())


def test_predictions_are_in_the_order_of_the_split():
    outputs, targets, ids = predict(identity, Rows(), batch=3)
    assert torch.equal(outputs, X)
    assert torch.equal(targets, Y)
    assert ids == tuple(range(10))


@pytest.mark.parametrize("metric", [ACCURACY, WHOLE], ids=["by sample", "whole"])
def test_the_quality_is_the_metric_of_all_samples_whatever_the_batch(metric):
    expected = correct(X, Y).mean().item()
    for batch in (1, 3, 64):
        quality = evaluate(identity, Rows(), metric, batch=batch)
        assert quality.value == pytest.approx(expected)
        assert quality.count == 10
    assert (quality.scores is None) == (metric.scores is None)


def test_where_lower_is_better_the_quality_is_the_metric_and_not_its_score():
    error = Metric(
        "error", lambda o, t: 1 - correct(o, t).mean().item(), lambda o, t: correct(o, t) - 1, (-1, 0), False
    )
    by_sample = evaluate(identity, Rows(), error, batch=4)
    whole = evaluate(identity, Rows(), replace(error, scores=None))
    assert by_sample.value == pytest.approx(whole.value)
    assert by_sample.scores.mean() == pytest.approx(-whole.value)


def test_a_metric_of_the_model_is_given_the_file_as_a_model():
    def accuracy(model, loader):
        return torch.cat([correct(model(x), y) for x, y in loader]).mean().item()

    found = evaluate(identity, Rows(), Metric("mine", WHOLE.value, of_model=accuracy), batch=3)
    assert found.value == pytest.approx(correct(X, Y).mean().item())
    assert found.count == 10


def test_a_split_without_targets_is_refused():
    class Unlabelled(Rows):
        def batches(self, size, **options):
            return (replace(part, target=None) for part in super().batches(size))

    for metric in (ACCURACY, WHOLE):
        with pytest.raises(MeasurementError, match="no targets"):
            evaluate(identity, Unlabelled(), metric)


def test_an_empty_split_is_refused():
    for metric in (ACCURACY, WHOLE):
        with pytest.raises(MeasurementError, match="search split is empty"):
            evaluate(identity, Rows(0), metric)


def test_a_quality_that_is_not_a_number_is_refused():
    nowhere = Metric("loss", lambda o, t: float("nan"))
    with pytest.raises(MeasurementError, match="loss on the search split is not a number"):
        evaluate(identity, Rows(), nowhere)


def test_ragged_outputs_without_scores_are_refused_with_the_way_out():
    with pytest.raises(MeasurementError, match="Pad the samples"):
        predict(lambda inputs: (np.zeros((1, len(inputs[0]))),), Rows(), batch=3)
