"""Rules that choose the range a grid covers; importing this package fills `RANGES`."""

from tersor.quantization.ranges import entropy, hqq, minmax, mse, percentile

__all__ = ["entropy", "hqq", "minmax", "mse", "percentile"]
