"""What a search may do where inputs are drawn at random: nothing that is learnt from them."""

from collections.abc import Sequence
from dataclasses import replace

from tersor.errors import ArgumentError
from tersor.loading.task import Task
from tersor.search.request import Request

#: Methods that have something which learns nothing from data.
ABLE = ("quantize", "weight_only")
#: Kinds of integers whose ranges are taken from data.
_CALIBRATED = ("static",)
#: What to do for a claim about real inputs.
_ADVICE = (
    "The inputs were drawn at random and are not your data, so this shows likeness to the original on such inputs "
    "only. Pass your data (`--data`, `data=...`) to have real inputs certified, and to let tersor prune, distil and "
    "take static ranges."
)
#: How many times as many inputs to draw where the certificate lacked some.
_MORE = 4


def without_learning(request: Request, methods: Sequence[str] | None, task: Task) -> Request:
    """Return `request` with the methods that learn nothing from data, where the inputs of `task` are none.

    Args:
        request: what was asked for.
        methods: as they were given; None for the usual ones.
        task: its inputs.

    Raises:
        ArgumentError: if methods that learn from data were asked for by name.
    """
    if not task.drawn:
        return request
    wrong = [method for method in methods or () if method not in ABLE]
    if wrong:
        raise ArgumentError(
            f"{' and '.join(wrong)} learn{'s' * (len(wrong) == 1)} from data, and the inputs are drawn at random: what "
            "is learnt from noise is wrong for real inputs. Pass your data (`data=...`, `--data`), leave `methods` "
            f"out, or choose of {' and '.join(ABLE)}."
        )
    return replace(request, methods=tuple(method for method in request.methods if method in ABLE))


def unlearned(schemes: Sequence[str], task: Task) -> tuple[str, ...]:
    """Return the kinds of integers that the inputs of `task` allow: without data none whose ranges come from it.

    Example:
        >>> from types import SimpleNamespace
        >>> unlearned(("static", "dynamic", "int8"), SimpleNamespace(drawn="random:3x8x8"))
        ('dynamic', 'int8')
    """
    return tuple(scheme for scheme in schemes if not (task.drawn and scheme in _CALIBRATED))


def advise(task: Task, *, tried: bool, short: bool) -> str:
    """Return what to do after a search on drawn inputs; an empty text for data.

    Args:
        task: its inputs.
        tried: whether there was any candidate.
        short: whether none could be certified.
    """
    if not task.drawn:
        return ""
    found = [_ADVICE]
    if short and tried:
        samples = _MORE * (len(task.search) + len(task.certification))
        drawn = f"{task.drawn.partition('?')[0]}?samples={samples}"
        found.insert(0, f"More random inputs can show a smaller drop: `--data '{drawn}'`.")
    if not tried:
        found.insert(0, "No method that learns nothing from data suits this network.")
    return " ".join(found)
