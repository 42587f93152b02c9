"""Given splits that share samples, or nearly do: what a certificate must not rest on."""

from dataclasses import replace
from itertools import islice

import numpy as np

from tersor.certification.overlap import Overlap, overlaps, samples_of
from tersor.errors import DataError
from tersor.loading.build import Built
from tersor.loading.parts import Part
from tersor.loading.task import Split, Task

#: Samples of the sealed split, and of another, that are compared; more would take minutes.
_SEALED, _OTHERS = 2_000, 20_000
#: Share of sealed samples with a near copy elsewhere from which on a split is refused; fewer are chance.
_MOST = 0.02


def is_given(built: Built) -> bool:
    """Whether the user gave the certification split, so that no hash of the content keeps copies out of it."""
    return built.notes.splits.origins["certification"].startswith("as given")


def check_given_splits(task: Task) -> tuple[str, ...]:
    """Return a remark on the sealed samples that are nearly also in train or search.

    Exact copies were refused when the data was divided. Of large splits the first samples are compared.

    Raises:
        DataError: if too many sealed samples have a near copy that was trained or searched on.
    """
    sealed = list(islice(samples_of(task.certification), _SEALED))
    remarks = []
    for split in (task.train, task.search):
        found = overlaps(sealed, list(islice(samples_of(split), _OTHERS)))
        if len(found) > _MOST * len(sealed):
            raise DataError(_refusal(found, len(sealed), split))
        if found:
            remarks.append(
                f"{len(found)} of {len(sealed):,} sealed samples look like one in {split.name} (the first is number "
                f"{found[0].first}, like {split.name} {found[0].second}): few enough to be chance"
            )
    return tuple(remarks)


def without_near_copies(task: Task) -> tuple[Task, tuple[str, ...]]:
    """Return `task` without the samples of train and search that are nearly also sealed, and what was left out.

    Only data that is read by index can be thinned; of streams nothing is left out.
    """
    sealed = list(samples_of(task.certification))
    kept: dict[str, Split] = {}
    remarks = []
    for split in (task.train, task.search):
        copies = [copy.first for copy in overlaps(list(samples_of(split)), sealed)]
        if copies and isinstance(split, Part):
            chosen = np.ones(len(split), dtype=bool)
            chosen[copies] = False
            kept[split.name] = split.choose(chosen, split.name)
            remarks.append(f"{len(copies)} {split.name} samples left out: they look like sealed ones")
    return replace(task, **kept), tuple(remarks)


def _refusal(found: tuple[Overlap, ...], looked: int, split: Split) -> str:
    first = f"certification {found[0].first} = {split.name} {found[0].second}"
    return (
        f"{len(found)} of {looked:,} certification samples are nearly also in {split.name} (the first is {first}). A "
        "certificate on data that was seen before means nothing. Leave them out with `leave_out_copies` "
        "(`--leave-out-copies`), or give one data set and let tersor split it."
    )
