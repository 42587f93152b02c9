"""Example inputs for commands that need a model to run once: from data, or random ones of a given shape."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tersor.loading.build import Built
    from tersor.loading.inputs import Inputs


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class ExampleFlags:
    """What the model is run on; one of the two."""

    data: str | None = None
    "Data, as for `tersor optimize`; real samples are what is run."

    input: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    "Shape of a random input, batch first: `2x3x224x224`, or `name=int64:2x128`; one for each input."


NO_EXAMPLE = ExampleFlags()
_SPEC = re.compile(r"(?:(?P<name>\w+)=)?(?:(?P<dtype>[a-z]+\d+|bool):)?(?P<shape>\d+(?:x\d+)*)")


def built_or_random(
    model: "nn.Module", flags: ExampleFlags, metric: str | None = None
) -> "tuple[Built | None, Inputs]":
    """Return the task that `--data` makes, if given, and example inputs.

    Raises:
        ArgumentError: if neither or both of `--data` and `--input` are given, or a shape is none.
        DataError: if the data does not fit the model.
    """
    from tersor.errors import ArgumentError
    from tersor.loading.build import build_task
    from tersor.loading.split import HARMLESS

    if bool(flags.data) == bool(flags.input):
        raise ArgumentError(
            "The model has to be run once: give either `--data REFERENCE` (real samples) or "
            "`--input 2x3x224x224` (a random input of that shape)."
        )
    if flags.data:
        built = build_task(model, flags.data, metric=metric, shares=HARMLESS)
        return built, built.task.inputs
    return None, random_inputs(flags.input)


def random_inputs(specs: tuple[str, ...]) -> "Inputs":
    """Return random tensors: normal for floats, 0 or 1 for integers, which any vocabulary has.

    Raises:
        ArgumentError: if a text is not of the form `[name=][dtype:]SHAPE`.

    Example:
        >>> [tuple(t.shape) for t in random_inputs(("2x3",))]
        [(2, 3)]
        >>> random_inputs(("ids=int64:1x4",))["ids"].dtype
        torch.int64
    """
    from tersor.errors import ArgumentError

    matches = [_SPEC.fullmatch(spec) for spec in specs]
    named: dict[str, Tensor] = {}
    for place, (spec, match) in enumerate(zip(specs, matches, strict=True)):
        if match is None or "0" in match["shape"].split("x"):
            raise ArgumentError(
                f"`--input` takes [name=][dtype:]SHAPE with positive sizes, such as 2x3x224x224 or "
                f"input_ids=int64:2x128, got {spec!r}."
            )
        named[match["name"] or f"#{place}"] = _random(match["dtype"] or "float32", match["shape"])
    unnamed = [name.startswith("#") for name in named]
    if any(unnamed) and not all(unnamed):
        raise ArgumentError("Give either every `--input` a name or none.")
    return tuple(named.values()) if all(unnamed) else named


def _random(dtype: str, shape: str) -> "Tensor":
    import torch

    from tersor._check import one_of

    kinds = {
        "float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "int64": torch.int64,
        "int32": torch.int32, "uint8": torch.uint8, "bool": torch.bool,
    }  # fmt: skip
    kind = kinds[one_of("dtype", dtype, kinds)]
    sizes = [int(size) for size in shape.split("x")]
    generator = torch.Generator().manual_seed(0)
    if kind.is_floating_point:
        return torch.randn(sizes, generator=generator).to(kind)
    return torch.randint(0, 2, sizes, generator=generator).to(kind)
