"""A Recipe: how the grids and the codes of a model are chosen, as data."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is quantized.

    Attributes:
        ranges: rule that turns observed values into a range, a key of `RANGES`.
        before: rescalings of the floating-point model, keys of `RESCALINGS`, in order.
        after: refinements of the quantized model, keys of `REFINEMENTS`, in order.
    """

    ranges: str = "mse"
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " + ".join((*self.before, self.ranges, *self.after))
