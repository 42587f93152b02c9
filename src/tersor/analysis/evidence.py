"""What is known about the units of a group, as matrices whose rows are the units.

A criterion reads these and never sees a layer: which axis of which tensor a
unit runs along is settled here.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tersor.errors import ArgumentError

#: What `collect` can add to the weights. The gradient fields need labels and a loss.
FIELDS = ("saliency", "curvature", "moment", "gram")


@dataclass(frozen=True, slots=True)
class Part:
    """What one member of a group holds of each unit.

    Attributes:
        tensor: name of the parameter or buffer.
        axis: its axis that the units run along.
        role: `reads` (a contraction sums over the units: the consumer side), `writes` (the units are its
            outputs), `looks up` (an embedding's width), `scales` (of a normalization), `carries` (anything
            else: biases, statistics, element-wise factors).
        weight: row u holds the entries of unit u. For `reads` they are ordered (features of the unit) by
            (outputs).
        width: features of a unit, for `reads`: its indices on the axis times the positions of a kernel.
        saliency: first-order effect of removing unit u on the loss of sample s, the sum of w dL/dw.
        curvature: sum over the unit's entries of w^2 E[(dL/dw)^2].
        moment: E[x^2] of each input feature, for `reads`.
        gram: E[x x^T] of the input features, ordered like the rows of `weight`, for `reads`.
    """

    tensor: str
    axis: int
    role: str
    weight: Float[Tensor, "units entries"]
    width: int = 1
    saliency: Float[Tensor, "samples units"] | None = None
    curvature: Float[Tensor, "units"] | None = None
    moment: Float[Tensor, "units width"] | None = None
    gram: Float[Tensor, "features features"] | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything collected about one group.

    Attributes:
        group: name of the group.
        size: number of units.
        parts: one for each member.
        fields: what was collected besides the weights, a subset of `FIELDS`.
        shape: signature of the group; groups with equal signatures do the same work in the network
            and their scores are comparable.
    """

    group: str
    size: int
    parts: tuple[Part, ...]
    fields: frozenset[str] = frozenset()
    shape: str = ""

    def of(self, *roles: str) -> tuple[Part, ...]:
        """Return the parts with one of `roles`."""
        return tuple(part for part in self.parts if part.role in roles)

    @property
    def weights(self) -> tuple[Part, ...]:
        """Parts that are weights of a contraction or embedding; all parts if there is none."""
        return self.of("reads", "writes", "looks up") or self.parts

    @property
    def consumers(self) -> tuple[Part, ...]:
        """The parts that cut a unit off from everything after it, once; all parts if nothing reads the units."""
        return self.of("reads") or self.parts

    @property
    def times(self) -> int:
        """How often `consumers` count a unit: once, or once for each producer if nothing reads the units."""
        return 1 if self.of("reads") else max(len(self.of("writes")), 1)

    def require(self, needs: frozenset[str], criterion: object) -> None:
        """Check that the fields that `criterion` needs were collected.

        Raises:
            ArgumentError: if one is missing, with the call that collects it.
        """
        missing = sorted(needs - self.fields)
        if missing:
            raise ArgumentError(
                f"{criterion!r} scores with {', '.join(missing)}, which the evidence of {self.group!r} has not. "
                f"Collect it with `collect(..., fields={set(missing)!r})`."
            )
