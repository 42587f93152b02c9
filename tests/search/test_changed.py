"""Samples whose answer changed, with real files."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from tersor.exporting.export import export
from tersor.loading.build import build_task
from tersor.search.changed import changed_answers, is_image, thumbnail


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    torch.manual_seed(0)
    images = torch.rand(400, 1, 6, 6)
    labels = (images.mean((1, 2, 3)) > 0.5).long()
    before = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    with torch.no_grad():
        before[1].weight.copy_(torch.stack([-torch.ones(36), torch.ones(36)]))
        before[1].bias.copy_(torch.tensor([18.0, -18.0]))
    after = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    after[1].load_state_dict({"weight": before[1].weight, "bias": before[1].bias + torch.tensor([1.0, 0.0])})
    task = build_task(before, (images, labels)).task
    folder = tmp_path_factory.mktemp("files")
    files = [export(net.eval(), task.inputs, folder / f"{n}.onnx") for n, net in enumerate((before, after))]
    run = SimpleNamespace(task=task, base=SimpleNamespace(artefact=files[0]))
    return run, SimpleNamespace(artefact=files[1]), before, after


def test_exactly_the_samples_that_change_are_found(runs):
    run, answer, before, after = runs
    found = changed_answers(run, answer, 1000)
    batch = next(run.task.search.batches(1000))
    with torch.no_grad():
        old, new = (net(batch.inputs[0]).argmax(1) for net in (before, after))
    expected = {str(batch.ids[i]) for i in torch.nonzero(old != new).flatten().tolist()}
    assert expected
    assert {item.sample for item in found} == expected
    assert all(item.before != item.after for item in found)
    assert found[0].target == found[0].before


def test_nothing_is_shown_unless_asked_for(runs):
    run, answer, *_ = runs
    assert changed_answers(run, answer, 0) == ()
    assert len(changed_answers(run, answer, 1)) == 1


def test_a_thumbnail_is_a_png_of_the_sample():
    image = pytest.importorskip("PIL.Image")
    sample = torch.linspace(-1, 3, 3 * 5 * 7).reshape(3, 5, 7)
    read = image.open(io.BytesIO(base64.b64decode(thumbnail(sample).partition(",")[2])))
    expected = ((sample + 1) / 4 * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(np.asarray(read), expected)
    assert image.open(io.BytesIO(base64.b64decode(thumbnail(torch.rand(1, 64, 64))[22:]))).size == (32, 32)


def test_noise_that_does_not_compress_is_left_out_rather_than_cut():
    assert thumbnail(torch.rand(3, 32, 32)) == ""
    assert is_image(torch.zeros(1, 4, 4))
    assert not is_image(torch.zeros(4, 4, 1))
