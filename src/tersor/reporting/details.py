"""The parts of a record that are learnt after a search: operators, classes, changed answers, limits, time."""

from pydantic.dataclasses import dataclass

from tersor.reporting.numbers import STRICT, Number


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Operator:
    """How often a kind of operator stands in the file of the original, and in what is shipped."""

    name: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Slice:
    """Quality on one class or part of the data, before and after."""

    name: str
    samples: int
    before: Number
    after: Number


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ChangedAnswer:
    """A sample that original and answer class differently; `picture` is empty or a PNG as a data address."""

    sample: str
    target: str
    before: str
    after: str
    picture: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class RooflinePoint:
    """A model on the roofline.

    Attributes:
        name: the model.
        macs_per_byte: multiply-adds for each byte moved.
        macs_per_s: multiply-adds per second reached.
        limit_s: shortest time that a call could take on this machine.
        share: that time over the measured one; 1 is the limit.
        bound: what sets the limit, `arithmetic` or `memory`.
    """

    name: str
    macs_per_byte: Number
    macs_per_s: Number
    limit_s: Number = None
    share: Number = None
    bound: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Roofline:
    """What the machine can do at most, measured, and where the models stand.

    Attributes:
        macs_per_s: highest arithmetic rate measured.
        bytes_per_s: highest memory rate measured.
        int8_macs_per_s: highest arithmetic rate measured in 8-bit integers.
        points: the models.
    """

    macs_per_s: float
    bytes_per_s: float
    int8_macs_per_s: Number = None
    points: tuple[RooflinePoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Phase:
    """How long a part of the search took."""

    name: str
    seconds: Number
