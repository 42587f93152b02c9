"""Parameters that one forward pass happened not to use, in lists of equal modules: experts that no token chose."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from tersor.graph.labels import Labels


def follow_siblings(
    labels: Labels, touched: set[int], tensors: Mapping[str, Tensor], modules: Mapping[str, nn.Module]
) -> None:
    """Give every unused parameter the cells of its counterpart in a module of the same list that was used."""
    for name, tensor in tensors.items():
        if id(tensor) not in touched:
            others = (tensors.get(twin) for twin in _counterparts(name, modules))
            used = (t for t in others if t is not None and id(t) in touched and t.shape == tensor.shape)
            _follow(labels, tensor, next(used, None), touched)


def _follow(labels: Labels, tensor: Tensor, other: Tensor | None, touched: set[int]) -> None:
    if other is None:
        return
    for own, theirs in zip(labels.of(tensor), labels.of(other), strict=True):
        labels.unify(own, theirs, "is as its siblings are")
    touched.add(id(tensor))


def _counterparts(name: str, modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """Yield the names that a parameter has in the siblings of the modules around it, from the inside out."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        owner, own, rest = ".".join(parts[: depth - 1]), parts[depth - 1], parts[depth:]
        parent = modules.get(owner)
        if parent is not None and isinstance(parent, nn.ModuleList | nn.ModuleDict):
            siblings = dict(parent.named_children())
            alike = [key for key, other in siblings.items() if type(other) is type(siblings.get(own))]
            yield from (".".join([*parts[: depth - 1], key, *rest]) for key in alike if key != own)
