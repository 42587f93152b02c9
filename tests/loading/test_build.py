import numpy as np
from torch import nn

from tersor.loading.build import build_task


def blobs(n=2000, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(classes, size=n)
    return (rng.normal(size=(n, 5)) + y[:, None]).astype(np.float32), y


def test_arrays_become_a_classification_task():
    x, y = blobs()
    task, notes = build_task(nn.Linear(5, 3), (x, y))
    assert task.kind == "classification"
    assert task.metric.name == "accuracy"
    print("\n".join(notes.words()))
    assert len(task.train) + len(task.search) + len(task.certification) == 2000
