"""Rules: what each ATen operation does to the cells on the axes of its tensors, one file per family.

Importing this package fills the registry.
"""

from tersor.graph.rules import (
    contractions,
    convolutions,
    creation,
    elementwise,
    indexing,
    joining,
    norms,
    recurrent,
    reductions,
    spatial,
    views,
)

__all__ = [
    "contractions", "convolutions", "creation", "elementwise", "indexing", "joining", "norms", "recurrent",
    "reductions", "spatial", "views",
]  # fmt: skip
