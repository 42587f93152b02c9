"""The catalogue of pruning criteria: how much each unit of a group matters. One file each."""

# Importing a criterion registers it.
from tersor.pruning.criteria import activation, bn_scale, fisher, fpgm, lamp, magnitude, obs, random, taylor

__all__ = ["activation", "bn_scale", "fisher", "fpgm", "lamp", "magnitude", "obs", "random", "taylor"]
