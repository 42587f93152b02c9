"""Rescalings and refinements; importing this package fills `RESCALINGS` and `REFINEMENTS`."""

from tersor.quantization.algorithms import adaround, awq, balance, bias, equalize, second_order, smooth

__all__ = ["adaround", "awq", "balance", "bias", "equalize", "second_order", "smooth"]
