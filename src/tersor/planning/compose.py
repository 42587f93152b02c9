"""Plans made one after the other, as one plan for the model that came first."""

from tersor.errors import PlanError
from tersor.planning.plan import Cut, Drop, Edit, Factorize, Plan


def compose(first: Plan, then: Plan) -> Plan:
    """Return the plan that does in one step what `first` and, on its result, `then` do.

    Cuts of one group are joined: indices that `then` keeps count units that `first` left. Edits of other kinds follow
    each other as they are.

    Args:
        first: plan for the original model.
        then: plan for the model that `first` gives, whose groups bear the same names.

    Returns:
        A plan for the original model.

    Raises:
        PlanError: if `then` keeps a unit that `first` did not leave.

    Example:
        >>> compose(Plan((Cut("conv", (0, 3, 5)),)), Plan((Cut("conv", (0, 2)),))).edits
        (Cut(group='conv', keep=(0, 5)),)
    """
    # A factorized layer writes its outputs by its second factor, and they were the layer's before.
    layers = {f"{edit.layer}.1": edit.layer for edit in first.of(Factorize)}
    then = Plan(tuple(_renamed(edit, layers) for edit in then.edits))
    later = {cut.group: cut.keep for cut in then.of(Cut)}
    joined: list[Edit] = []
    for edit in first.edits:
        if isinstance(edit, Cut) and edit.group in later:
            edit = Cut(edit.group, _chosen(edit, later.pop(edit.group)))
        joined.append(edit)
    rest = [edit for edit in then.edits if not isinstance(edit, Cut) or edit.group in later]
    gone = tuple(f"{edit.block}." for edit in then.of(Drop))
    return Plan(tuple(edit for edit in (*joined, *rest) if not _is_inside(edit, gone)))


def _is_inside(edit: Edit, blocks: tuple[str, ...]) -> bool:
    """Whether an edit is to a layer that a dropped block takes with it; cuts hold for every layer they reach."""
    return bool(blocks) and isinstance(edit, Factorize | Drop) and edit_path(edit).startswith(blocks)


def edit_path(edit: Factorize | Drop) -> str:
    """Return the path of the module that an edit replaces."""
    return edit.layer if isinstance(edit, Factorize) else edit.block


def _renamed(edit: Edit, layers: dict[str, str]) -> Edit:
    return Cut(layers[edit.group], edit.keep) if isinstance(edit, Cut) and edit.group in layers else edit


def _chosen(cut: Cut, keep: tuple[int, ...]) -> tuple[int, ...]:
    if keep and max(keep) >= len(cut.keep):
        raise PlanError(
            f"The second plan keeps unit {max(keep)} of {cut.group}, and the first left {len(cut.keep)} units. "
            "Make the second plan from the model that the first one gave."
        )
    return tuple(cut.keep[index] for index in keep)
