"""Trained networks that other benchmarks begin from; README.md says how to train them."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent / "cache" / "bases"


def weights(base: str) -> Path:
    """Return the file with the weights of a base: the one kept here, or what was trained where it is too large."""
    kept = HERE / f"{base}.safetensors"
    return kept if kept.exists() else CACHE / base / "model.safetensors"
