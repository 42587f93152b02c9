"""The numbers of a record: what was not measured, or is not finite, is None."""

import math
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict

#: Of every part of a record: no field that is not known.
STRICT = ConfigDict(extra="forbid", ser_json_inf_nan="null")


def _finite(value: object) -> float | None:
    try:
        number = float(value)  # pyright: ignore[reportArgumentType]  # what float() refuses is reported below
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not a number: {error}") from error
    return number if math.isfinite(number) else None


def _count(value: object) -> int | None:
    number = _finite(value)
    return None if number is None else int(number)


def _or_none(read):
    return BeforeValidator(lambda value: None if value is None else read(value))


Number = Annotated[float | None, _or_none(_finite)]
Count = Annotated[int | None, _or_none(_count)]
