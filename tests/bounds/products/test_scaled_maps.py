"""Maps with a number pulled out, and exact numbers rounded upwards."""

import math
from fractions import Fraction

import pytest
import torch

from onelip.bounds.products.scaled_maps import above, finite_above, flat, fraction, permutes, pulled
from onelip.chains import Dense, Gather, Reshape, Scale, composed
from onelip.errors import NonFiniteError


@pytest.mark.parametrize("size", [5e-324, 1e-200, 1.0, 3.0, 1e300])
def test_pulling_is_exact(size: float) -> None:
    weight = torch.tensor([[1.0, -0.3], [0.7, 0.0]], dtype=torch.float64) * size
    factor, core = pulled(Dense(weight))
    assert isinstance(core, Dense)
    for number, scaled in zip(weight.flatten(), core.weight.flatten(), strict=True):
        assert Fraction(float(number)) == factor * Fraction(float(scaled))
    assert 0.5 <= float(core.weight.abs().max()) <= 1 or size == 5e-324
    assert pulled(core)[1] is core or size == 5e-324


def test_what_cannot_be_pulled_exactly_stays() -> None:
    dense = Dense(torch.tensor([[1e300, 1e-300]], dtype=torch.float64))
    assert pulled(dense) == (1, dense)


def test_numbers_and_zeros() -> None:
    factor, core = pulled(Scale((3,), torch.tensor(-0.25).double()))
    assert (factor, core) == (Fraction(1, 4), None)
    assert pulled(Dense(torch.zeros(2, 2)))[0] == 0


def test_flat_and_permutations() -> None:
    dense, shape = Dense(torch.eye(4)), Reshape((4,), (2, 2))
    assert flat([composed([dense, shape]), dense]) == (dense, shape, dense)
    assert permutes(shape)
    assert permutes(Gather((3,), (3,), torch.tensor([2, 0, 1])))
    assert not permutes(Gather((3,), (3,), torch.tensor([2, 0, -1])))
    assert not permutes(dense)


def test_rounding_is_upwards() -> None:
    third = Fraction(1, 3)
    assert Fraction(float(above(third))) >= third
    assert float(above(Fraction(10) ** 400)) == math.inf
    with pytest.raises(NonFiniteError, match="beyond the largest"):
        finite_above(Fraction(10) ** 400)
    with pytest.raises(NonFiniteError, match="a constant of the network is inf"):
        fraction(math.inf)
