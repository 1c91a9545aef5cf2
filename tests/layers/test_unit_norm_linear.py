"""The head with rows of length one."""

import pytest
import torch

import onelip
from onelip import layers


def test_rows_of_the_last_layer_have_length_one():
    head = layers.UnitNormLinear(5, 4).double()
    head.raw_weight.data = (
        torch.randn(4, 5, dtype=torch.float64) * torch.logspace(-6, 6, 4)[:, None]
    )
    assert head.weight.norm(dim=1).tolist() == pytest.approx([1] * 4, rel=1e-12)
    x = torch.randn(3, 5, dtype=torch.float64)
    assert torch.equal(head(x), x @ head.weight.T + head.bias) or torch.allclose(
        head(x), x @ head.weight.T + head.bias, rtol=1e-14
    )


def test_the_bound_of_the_last_layer_is_measured():
    head = layers.UnitNormLinear(5, 4)
    assert float(onelip.lipschitz_bound(head)) == pytest.approx(1, abs=1e-5)
    head.raw_weight.data = torch.ones(4, 5)
    assert float(onelip.lipschitz_bound(head)) == pytest.approx(2, rel=1e-6)
    head.raw_weight.data.zero_()  # no direction to normalise
    assert float(onelip.lipschitz_bound(head)) == 0
