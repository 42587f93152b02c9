"""The catalogue of pruning criteria: how much each unit of a group matters. One file each."""

# Importing a criterion registers it.
from tersor.pruning.criteria import magnitude, random, taylor

__all__ = ["magnitude", "random", "taylor"]
