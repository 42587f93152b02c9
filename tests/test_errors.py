import pytest

from tersor._check import fraction, one_of, positive
from tersor._extras import require
from tersor.errors import ArgumentError, MissingExtraError, TersorError


@pytest.mark.parametrize("value", [1, 50, -0.5, float("nan")])
def test_a_fraction_outside_its_range_is_refused(value):
    with pytest.raises(ArgumentError, match=r"fraction in \[0, 1\)"):
        fraction("ratio", value)


def test_a_percentage_is_recognised():
    with pytest.raises(ArgumentError, match=r"If you meant 50 per cent, pass 0\.5"):
        fraction("ratio", 50)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_number_that_is_not_positive_is_refused(value):
    with pytest.raises(ArgumentError, match="positive finite number"):
        positive("lr", value)


def test_a_typo_gets_the_closest_choice():
    with pytest.raises(ArgumentError, match="Did you mean 'adamw'"):
        one_of("optimizer", "adamW", ("sgd", "adamw"))


def test_a_missing_extra_gives_the_install_line():
    with pytest.raises(MissingExtraError, match=r"pip install 'tersor\[moon\]'"):
        require("no_such_module_at_all", extra="moon", purpose="Landing")


def test_every_error_is_a_tersor_error_and_a_builtin():
    from tersor import errors

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and k is not TersorError]
    assert len(kinds) >= 10
    assert all(issubclass(k, TersorError) and len(k.__mro__) > 4 for k in kinds)
