"""What can be done to each unit of a network, with what it costs and the harm it does."""

from collections.abc import Sequence
from dataclasses import dataclass

from tersor.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be done to a unit.

    Attributes:
        level: what is done: units kept, a rank, a precision, `keep` or `drop`.
        cost: what the unit then costs, one number for each budget (seconds, bytes, ...).
        harm: expected change of the outputs; additive over units.
    """

    level: int | str
    cost: tuple[float, ...]
    harm: float


@dataclass(frozen=True, slots=True)
class Menu:
    """The options of one unit; exactly one of them is taken.

    Attributes:
        unit: name of a coupled group, a factorizable layer, a droppable block or a quantization site.
        options: what can be done to it.

    Raises:
        ArgumentError: if there is no option, or costs differ in number.
    """

    unit: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise ArgumentError(
                f"The menu of {self.unit!r} is empty; it must hold at least what is there now."
            )
        if len({len(option.cost) for option in self.options}) > 1:
            raise ArgumentError(f"The options of {self.unit!r} must have equally many costs.")


def undominated(menu: Menu) -> Menu:
    """Return the menu without options that another one beats or equals in harm and in every cost.

    Of equal options the first stays; the others keep their order.

    Example:
        >>> menu = Menu("conv", (Option(8, (4.0,), 0.0), Option(4, (4.0,), 1.0), Option(2, (1.0,), 2.0)))
        >>> [option.level for option in undominated(menu).options]
        [8, 2]
    """
    kept = [
        option
        for index, option in enumerate(menu.options)
        if not any(_beats(other, option, before=rank < index) for rank, other in enumerate(menu.options))
    ]
    return Menu(menu.unit, tuple(kept))


def _beats(one: Option, other: Option, *, before: bool) -> bool:
    mine, theirs = (one.harm, *one.cost), (other.harm, *other.cost)
    no_worse = all(a <= b for a, b in zip(mine, theirs, strict=True))
    return no_worse and (mine != theirs or (before and one is not other))


def hull(options: Sequence[Option]) -> list[int]:
    """Return the positions of the options on the lower convex hull of (first cost, harm), dearest first.

    Along it the harm added for each unit of cost saved never falls: it is the order in which a Lagrangian
    relaxation takes them.

    Example:
        >>> options = [Option(0, (4.0,), 0.0), Option(1, (3.0,), 5.0), Option(2, (2.0,), 6.0), Option(3, (0.0,), 9.0)]
        >>> hull(options)
        [0, 3]
    """
    order = sorted(range(len(options)), key=lambda i: (-options[i].cost[0], options[i].harm))
    found: list[int] = []
    for index in order:
        if found and options[index].harm <= options[found[-1]].harm:
            while found and options[found[-1]].harm >= options[index].harm:
                found.pop()
        while len(found) > 1 and _slope(options, found[-2], found[-1]) >= _slope(options, found[-2], index):
            found.pop()
        if not found or options[index].cost[0] < options[found[-1]].cost[0]:
            found.append(index)
    return found


def _slope(options: Sequence[Option], dear: int, cheap: int) -> float:
    """Return the harm added for each unit of cost saved; infinite where nothing is saved."""
    saved = options[dear].cost[0] - options[cheap].cost[0]
    return (options[cheap].harm - options[dear].harm) / saved if saved > 0 else float("inf")
