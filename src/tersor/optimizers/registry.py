"""Optimizers by name: one dict, one decorator.

A recipe is a frozen dataclass whose fields are the hyperparameters of one
algorithm; `build` makes a `torch.optim.Optimizer` for given parameters.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from tersor._check import fraction, not_negative, one_of, positive
from tersor.errors import ArgumentError

#: Tensors, or groups as torch takes them: dicts with `params` and their own hyperparameters.
Parameters: TypeAlias = Iterable[Tensor] | Iterable[dict[str, Any]]


class Recipe(Protocol):
    """Hyperparameters of one algorithm, as a frozen dataclass; `lr` is the peak learning rate."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def lr(self) -> float:
        """Peak learning rate, above zero."""
        ...

    def build(self, parameters: Parameters) -> torch.optim.Optimizer:
        """Make the optimizer for `parameters`."""
        ...


#: Every algorithm by its name, filled by the modules of this room.
RECIPES: dict[str, type[Any]] = {}

#: The range of every hyperparameter that means the same in all recipes.
RANGES: dict[str, Callable[[str, float], float]] = {
    "lr": positive, "eps": positive, "steps": positive, "d0": positive,
    "momentum": fraction, "alpha": fraction, "beta1": fraction, "beta2": fraction,
    "weight_decay": not_negative, "lr_decay": not_negative, "initial": not_negative,
}  # fmt: skip

Kind = TypeVar("Kind", bound=type)


def recipe(name: str) -> Callable[[Kind], Kind]:
    """Register the dataclass below under `name`."""

    def register(kind: Kind) -> Kind:
        if name in RECIPES:
            raise ValueError(f"{name!r} is already the name of {RECIPES[name].__name__}.")
        RECIPES[name] = kind
        return kind

    return register


def check_ranges(recipe: Recipe) -> None:
    """Check the hyperparameters that `RANGES` names.

    Raises:
        ArgumentError: if one is outside its range.
    """
    for name, value in asdict(recipe).items():
        if name in RANGES:
            RANGES[name](name, value)


def make_recipe(name: str, *, lr: float, **options: Any) -> Recipe:
    """Return the recipe called `name` with its hyperparameters.

    Args:
        name: a key of `RECIPES`.
        lr: peak learning rate, above zero.
        options: further fields of the recipe; what is left out has the default of its source.

    Raises:
        ArgumentError: if the name or an option is unknown, or a value is outside its range.

    Example:
        >>> make_recipe("sgd", lr=0.1, momentum=0.9).momentum
        0.9
        >>> make_recipe("adam", lr=0.1, momentum=0.9)
        Traceback (most recent call last):
        ...
        tersor.errors.ArgumentError: `adam` has no option 'momentum'. It takes lr, beta1, beta2, eps, weight_decay.
    """
    kind = RECIPES[one_of("optimizer", name, RECIPES)]
    known = [field.name for field in fields(kind)]
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ArgumentError(f"`{name}` has no option {unknown[0]!r}. It takes {', '.join(known)}.")
    return kind(lr=lr, **options)


def make_optimizer(name: str, parameters: Parameters, *, lr: float, **options: Any) -> torch.optim.Optimizer:
    """Return a torch optimizer by its name.

    Args:
        name: a key of `RECIPES`: sgd, adam, adamw, rmsprop, adagrad, nadamw, lion, adafactor, muon,
            schedule_free, prodigy.
        parameters: tensors or parameter groups.
        lr: learning rate, above zero.
        options: further hyperparameters of the algorithm.

    Raises:
        ArgumentError: if the name or an option is unknown, or a value is outside its range.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = make_optimizer("sgd", [weight], lr=0.5, momentum=0.0)
        >>> weight.grad = torch.tensor([1.0])
        >>> optimizer.step()
        >>> weight.item()
        0.5
    """
    return make_recipe(name, lr=lr, **options).build(parameters)
