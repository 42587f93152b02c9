"""The two tables as splits, tokenized by the saved tokenizer."""

from tersor.loading.data import load_data


def splits() -> dict[str, object]:
    """Return the sentences the network was trained on, and held-out ones."""
    options = "text=text&target=label&tokenizer=tiny-bert&length=16"
    parts = {"train": "train.csv", "validation": "held.csv"}
    return {name: load_data(f"csv:{file}?{options}")["data"] for name, file in parts.items()}
