"""Give each of the four parts its samples: those given explicitly, the others by the hash split."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from tersor.errors import DataError
from tersor.loading.binding import Binding
from tersor.loading.drawn import PART
from tersor.loading.parts import SOURCE_STRIDE, Part, StreamPart
from tersor.loading.sources import Source, Stream
from tersor.loading.split import Shares, assign, draw
from tersor.loading.survey import Survey

PARTS = ("train", "calibration", "search", "certification")


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """A given data set.

    Attributes:
        source: the data.
        survey: what one pass found in it.
        copies: which of its samples are left out because the sealed set holds them too; None for none.
    """

    source: Source
    survey: Survey
    copies: np.ndarray | None = None

    def used(self, chosen: np.ndarray) -> np.ndarray:
        """Return `chosen` without the samples that are left out."""
        return chosen if self.copies is None else chosen & ~self.copies

    def content(self) -> np.ndarray:
        """Return the fingerprints of the samples that are used."""
        return self.survey.digests[self.used(np.ones(len(self.survey), dtype=bool))]


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """Who got which samples, and why.

    Attributes:
        counts: samples of each part.
        origins: for each part, where its samples come from, in words.
        remarks: what the user should know: repeated samples, overlaps, changing samples.
        span: smallest and largest target outside certification, so that bounds of scores owe nothing to sealed data.
    """

    counts: Mapping[str, int]
    origins: Mapping[str, str]
    remarks: tuple[str, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)

    def words(self) -> tuple[str, ...]:
        """Return the plan as lines to show."""
        lines = [f"{name} {self.counts[name]:,}: {self.origins[name]}" for name in PARTS]
        return (*lines, *self.remarks)


@dataclass(slots=True)
class _Builder:
    binding: Binding
    parts: dict[str, Part | StreamPart] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    spans: list[np.ndarray] = field(default_factory=list)

    def give(self, name: str, pool: Pool, chosen: np.ndarray, number: int, origin: str) -> None:
        """Make the part of the samples of `pool` where `chosen`."""
        chosen = pool.used(chosen)
        digests = pool.survey.digests[chosen]
        if name != "certification" and pool.survey.spans is not None:
            self.spans.append(pool.survey.spans[chosen])
        if isinstance(pool.source, Stream):
            part = StreamPart(name, pool.source, np.unique(digests), len(digests), self.binding)
        else:
            part = Part(
                name, pool.source, np.flatnonzero(chosen), digests, self.binding, number * SOURCE_STRIDE
            )
        self.parts[name], self.origins[name] = part, origin


def divide(
    pools: Mapping[str, Pool], binding: Binding, shares: Shares, seed: int
) -> tuple[dict[str, Part | StreamPart], SplitPlan]:
    """Make the four parts.

    Parts that are given are used as they are. One data set becomes train, search and certification; a
    validation set becomes search and certification, as inputs drawn at random do; search comes out of train if only
    a test set is given.
    Calibration is drawn from train (from search without training data).

    Args:
        pools: what was given, by name (`data`, or part names and `validation`).
        binding: how batches become inputs and target.
        shares: of a set that is split.
        seed: of the draw of the calibration samples. The split itself depends on nothing but the content.

    Returns:
        The parts by name, and the plan in words.

    Raises:
        DataError: if a part would be empty, changes between reads, or shares samples with the sealed one.
    """
    build = _Builder(binding)
    pools = _without_copies(pools) if shares.leave_out_copies else pools
    for number, (name, pool) in enumerate(pools.items()):
        _place(build, number, name, pool, _wanted(name, pools, shares, len(pool.survey)))
    if "search" not in build.parts or "certification" not in build.parts:
        raise DataError(
            f"Splits {', '.join(map(repr, pools))} leave nothing to search or certify with. Give one data set, or "
            "train and validation, or train and test."
        )
    if "train" not in build.parts:
        number = next(n for n, name in enumerate(pools) if name == _home("search", pools))
        pool = pools[_home("search", pools)]
        build.give(
            "train",
            pool,
            np.zeros(len(pool.survey), dtype=bool),
            number,
            "none given, so no recovery training",
        )
    if "calibration" not in build.parts:
        _draw_calibration(build, shares.calibration, seed)
    _refuse_empty(build.parts)
    remarks = (*_overlaps(build.parts, pools), *_repeats(pools), *_warn_of_training_data(pools))
    counts = {name: len(build.parts[name]) for name in PARTS}
    return build.parts, SplitPlan(counts, build.origins, remarks, _span(build.spans))


def _span(spans: list[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate(spans) if spans else np.empty((0, 2))
    return (float(values[:, 0].min()), float(values[:, 1].max())) if len(values) else (0.0, 1.0)


def _home(name: str, pools: Mapping[str, Pool]) -> str:
    """Return the pool that a part comes from."""
    return next(home for home in (name, "validation", "search", "data", PART, "train") if home in pools)


def _wanted(name: str, pools: Mapping[str, Pool], shares: Shares, size: int) -> dict[str, float]:
    """Return which parts the pool `name` is split into, with their fractions."""
    full = shares.of(size)
    test_given, search_given = "certification" in pools, "search" in pools or "validation" in pools
    if name == "data" or (name == "train" and not test_given and not search_given):
        return full
    if name == "train" and not search_given:
        return {"train": 1 - full["search"], "search": full["search"]}
    if name in ("validation", "search", PART) and not test_given:
        both = full["search"] + full["certification"]
        return {"search": full["search"] / both, "certification": full["certification"] / both}
    return {"search" if name == "validation" else name: 1.0}


def _without_copies(pools: Mapping[str, Pool]) -> dict[str, Pool]:
    """Leave out of every other set the samples that the set with the sealed samples holds."""
    home = _home("certification", pools)
    sealed = pools[home].survey.digests
    return {
        name: pool if name == home else replace(pool, copies=np.isin(pool.survey.digests, sealed))
        for name, pool in pools.items()
    }


def _place(build: _Builder, number: int, name: str, pool: Pool, wanted: Mapping[str, float]) -> None:
    if pool.survey.changing and set(wanted) != {"train"}:
        raise DataError(
            f"The {name} data changes between two reads (random augmentation?), so answers cannot be compared on it. "
            "Turn the augmentation off, or give (train, validation) with it in train only."
        )
    if len(wanted) == 1:
        (part,) = wanted
        build.give(part, pool, np.ones(len(pool.survey), dtype=bool), number, f"as given ({name})")
        return
    numbers = assign(pool.survey.digests, pool.survey.labels, wanted)
    how = "hash of the content" + (", stratified by label" if pool.survey.labels is not None else "")
    for k, (part, share) in enumerate(wanted.items()):
        if part in build.parts:
            raise DataError(f"Two of the given splits both hold the {part} data; give one of them.")
        build.give(part, pool, numbers == k, number, f"{100 * share:.0f}% of the {name} set by {how}")


def _draw_calibration(build: _Builder, count: int, seed: int) -> None:
    home = "train" if len(build.parts["train"]) else "search"
    part = build.parts[home]
    if isinstance(part, Part):
        chosen = draw(part.digests, count, seed)
        build.parts["calibration"] = part.choose(chosen, "calibration")
    else:
        build.parts["calibration"] = part.first(count, "calibration")
    build.origins["calibration"] = f"drawn from {home}, labels not used"


def _refuse_empty(parts: Mapping[str, Part | StreamPart]) -> None:
    empty = [name for name in ("search", "certification", "calibration") if not len(parts[name])]
    if empty:
        total = sum(len(parts[name]) for name in ("train", "search", "certification"))
        raise DataError(
            f"The {empty[0]} split would be empty: there are {total:,} samples in all. "
            "Give more samples, or explicit splits."
        )


def _overlaps(parts: Mapping[str, Part | StreamPart], pools: Mapping[str, Pool]) -> tuple[str, ...]:
    """Refuse samples that are both sealed and used before; remark on those both trained on and searched on."""
    if len(pools) == 1:
        return ()
    sealed = _content(parts["certification"])
    home = _home("certification", pools)
    for name, pool in pools.items():
        shared = np.intersect1d(pool.content(), sealed)
        if name != home and len(shared):
            example = _some_id(parts["certification"], shared[0])
            raise DataError(
                f"{len(shared):,} distinct samples of the certification data are also in the {name} data, exact copies "
                f"(one is number {example} of the {home} data). Remove them from {name}, give one data set and let "
                "tersor split it, or leave them out with `leave_out_copies` (`--leave-out-copies`)."
            )
    shared = np.intersect1d(_content(parts["train"]), _content(parts["search"]))
    if len(shared):
        return (
            f"{len(shared):,} search samples are also in train: the search will think too well of its candidates",
        )
    return ()


def _content(part: Part | StreamPart) -> np.ndarray:
    return np.unique(part.digests) if isinstance(part, Part) else part.members


def _some_id(part: Part | StreamPart, digest: np.uint64) -> int:
    if isinstance(part, Part):
        return int(part.indices[np.flatnonzero(part.digests == digest)[0]])
    return int(digest >> np.uint64(1))


def _warn_of_training_data(pools: Mapping[str, Pool]) -> tuple[str, ...]:
    if any(name in pools for name in ("validation", "search", "certification", PART)):
        return ()
    return (
        "one data set given: if the model was trained on it, give (train, held-out) instead, or the "
        "certificate is vain",
    )


def _repeats(pools: Mapping[str, Pool]) -> tuple[str, ...]:
    remarks = []
    for name, pool in pools.items():
        repeated = len(pool.survey) - len(np.unique(pool.survey.digests))
        if pool.copies is not None and pool.copies.any():
            remarks.append(
                f"{int(pool.copies.sum()):,} {name} samples left out: copies of sealed or search samples"
            )
        if pool.survey.changing:
            remarks.append(
                f"the {name} data changes between reads, so copies in other splits cannot be found"
            )
        elif repeated:
            remarks.append(
                f"{repeated:,} of the {len(pool.survey):,} {name} samples are copies; copies stay in one part"
            )
    return tuple(remarks)
