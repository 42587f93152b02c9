"""Rules that choose the range a grid covers; importing this package fills `RANGES`."""

from tersor.quantization.ranges import entropy, minmax, mse, percentile

__all__ = ["entropy", "minmax", "mse", "percentile"]
