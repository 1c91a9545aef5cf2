"""Input scaling."""

from fractions import Fraction

import pytest
import torch

import onelip
from onelip import layers
from onelip.errors import NonFiniteError


def test_normalize_by_hand_and_its_errors():
    layer = layers.Normalize([0.5, 0.25], [0.25, 0.5])
    x = torch.tensor([[[[1.0]], [[1.0]]]])
    assert layer(x).flatten().tolist() == [2.0, 1.5]
    assert layer(x.flatten(1)).tolist() == [[2.0, 1.5]]
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(4, rel=1e-12)
    for mean, std in (([0.0], [0.0]), ([0.0], [1.0, 1.0])):
        with pytest.raises(ValueError, match="one mean and one std"):
            layers.Normalize(mean, std)
    layer.std.zero_()
    with pytest.raises(NonFiniteError):
        onelip.lipschitz_bound(layer)


def test_the_bound_of_normalize_is_that_of_the_stored_std():
    """0.1 in float32 is a little more than 0.1; in float16 a little less."""
    for dtype in (torch.float32, torch.float16, torch.float64):
        layer = layers.Normalize([0.0], [0.1]).to(dtype)
        exact = 1 / Fraction(layer.std.item())
        assert Fraction(float(onelip.lipschitz_bound(layer))) >= exact
