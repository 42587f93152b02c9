"""Real data sets in files."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tersor.loading.build import build_task

DATA = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not DATA.is_dir(), reason="the large data sets are missing"),
]


@pytest.mark.slow
def test_cifar_10_test_images_make_a_stratified_task():
    file = DATA / "cifar10" / "test.parquet"
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
    task, _ = build_task(
        model, f"parquet:{file}?image=image&label=label&mean=0.491,0.482,0.447&std=0.247,0.244,0.262"
    )
    assert [len(task.train), len(task.search), len(task.certification)] == pytest.approx(
        [6000, 1500, 2500], abs=12
    )
    batch = next(task.train.batches(1000, shuffle=0))
    assert batch.inputs[0].shape == (1000, 3, 32, 32)
    assert abs(float(batch.inputs[0].mean())) < 0.1
    assert 0.8 < float(batch.inputs[0].std()) < 1.2
    counts = torch.cat([b.target for b in task.certification.batches(500)]).bincount(minlength=10)
    assert (counts - 250).abs().max() <= 3


def test_sst_2_sentences_are_tokenized_with_a_local_tokenizer(tmp_path):
    transformers = pytest.importorskip("transformers")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "a",
        "film",
        "movie",
        "good",
        "bad",
        "not",
        "and",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    reference = f"tsv:{DATA / 'sst2' / 'dev.tsv'}?header=no&text=0&target=1&tokenizer={tmp_path}&length=32"
    task, notes = build_task(transformers.BertForSequenceClassification(config), reference)
    assert task.kind == "classification"
    assert "input_ids" in "".join(notes.binding.words())
