"""One small network of every kind of task: it binds, it is measured alike as a module and as a file, it learns."""

import numpy as np
import pytest
import torch
from torch import nn

from tersor.exporting.export import export, open_artefact
from tersor.loading.build import build_task
from tersor.loading.evaluate import evaluate
from tersor.loading.inputs import to_numpy

SAMPLES = 900


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(width, outputs):
    return nn.Sequential(nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, outputs))


class Tagger(nn.Module):
    """Gives each token a class; as a language model, the next token."""

    def __init__(self, classes):
        super().__init__()
        self.table, self.mix, self.top = nn.Embedding(11, 12), nn.Linear(12, 16), nn.Linear(16, classes)

    def forward(self, tokens):
        return self.top(torch.relu(self.mix(self.table(tokens))))


class Sentence(nn.Module):
    """Gives each sentence a vector, named as Transformers names it."""

    def __init__(self):
        super().__init__()
        self.table, self.top = nn.Embedding(11, 12), nn.Linear(12, 8)

    def forward(self, input_ids):
        return {"last_hidden_state": self.top(self.table(input_ids).mean(1))}


def multilabel():
    x = drawn(SAMPLES, 8)
    return mlp(8, 4), (x, (x[:, :4] + x[:, 4:] > 0).float()), {}


def regression():
    x = drawn(SAMPLES, 8)
    return mlp(8, 2), (x, torch.stack([x[:, 0] * 2, x[:, 1] - x[:, 2]], 1)), {}


def segmentation():
    x = drawn(SAMPLES, 3, 8, 8)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    return net, (x, x.argmax(1)), {"metric": "iou"}


def tokens():
    x = torch.randint(0, 11, (SAMPLES, 6), generator=torch.Generator().manual_seed(0))
    y = (x % 3).clone()
    y[:, 0] = -100
    return Tagger(3), (x, y), {}


def embeddings():
    x = torch.randint(0, 11, (SAMPLES, 6), generator=torch.Generator().manual_seed(0))
    return Sentence(), {"input_ids": x}, {}


def language():
    x = torch.randint(0, 11, (SAMPLES, 6), generator=torch.Generator().manual_seed(0))
    return Tagger(11), (x, x), {"metric": "nll"}


def audio():
    x = drawn(SAMPLES, 1, 200)
    y = (x[:, 0, :100].pow(2).sum(1) > x[:, 0, 100:].pow(2).sum(1)).long()
    net = nn.Sequential(
        nn.Conv1d(1, 8, 16, stride=8), nn.ReLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(16, 2)
    )
    return net, (x, y), {}


def within_one(preds, target):
    return float(((preds - target).abs() < 1).float().mean())


def squared(output, target):
    return (output - target).square().mean()


def own():
    return (*regression()[:2], {"metric": within_one, "loss": squared})


KINDS = {
    "multilabel": (multilabel, "multilabel", "accuracy"),
    "regression": (regression, "regression", "mse"),
    "segmentation": (segmentation, "segmentation", "iou"),
    "tokens": (tokens, "tokens", "accuracy"),
    "embeddings": (embeddings, "fidelity", "cosine"),
    "language": (language, "language", "nll"),
    "audio": (audio, "classification", "accuracy"),
    "own metric and loss": (own, "regression", "within_one"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_task_binds_and_its_file_measures_as_its_module(name, tmp_path):
    make, kind, metric = KINDS[name]
    torch.manual_seed(0)
    model, data, words = make()
    task, _ = build_task(model, data, **words)
    assert (task.kind, task.metric.name) == (kind, metric)
    session = open_artefact(export(task.model, task.inputs, tmp_path / "m.onnx"))

    def as_model(*inputs, **named):
        return torch.from_numpy(session(to_numpy(named or inputs))[0])

    value = evaluate(task.metric, task.model, task.search)
    assert np.isfinite(value)
    assert evaluate(task.metric, as_model, task.search) == pytest.approx(value, abs=2e-3)


@pytest.mark.parametrize("name", [n for n in KINDS if n != "embeddings"])
def test_the_loss_of_a_task_goes_down_and_takes_the_metric_along(name):
    make, _, _ = KINDS[name]
    torch.manual_seed(0)
    model, data, words = make()
    task, _ = build_task(model, data, **words)
    before = evaluate(task.metric, model.eval(), task.search)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.02)
    for epoch in range(4):
        for batch in task.train.batches(64, shuffle=epoch):
            optimizer.zero_grad()
            loss = task.loss(model(*batch.inputs), batch.target)
            loss.backward()
            optimizer.step()
    after = evaluate(task.metric, model.eval(), task.search)
    if name != "language":  # its tokens are random: there is nothing to foretell
        assert (after > before) == task.metric.higher_is_better
    assert torch.isfinite(loss)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_a_task_goes_through_the_whole_journey(name):
    from tersor.search.optimize import optimize

    make, _, metric = KINDS[name]
    torch.manual_seed(0)
    model, data, words = make()
    if name == "regression" or name.startswith("own"):
        words |= {"metric": words.get("metric", "r2")}
    result = optimize(model, data, max_drop="30%", goal="size", methods=("quantize",), budget="10s", **words)
    assert result.artefact.path.is_file()
    assert result.run.base.quality is not None
    assert metric in {result.run.task.metric.name, "mse"}
    assert result.sentence
