"""Trained networks that other benchmarks begin from; README.md says how to train them."""

from pathlib import Path


def weights(base: str) -> Path:
    """Return the file with the weights of a base."""
    return Path(__file__).resolve().parents[1] / "cache" / "bases" / base / "model.safetensors"
