"""The sqrt(rho)-Lipschitz layers of Proposition 3.1, one by one and with LipLT across them."""

import math

import pytest
import torch
from torch import nn

import onelip
from onelip import bounds, layers
from onelip.reading import read
from onelip.testing import jacobian_norm


def proposition(weight, bias, multipliers, rho, x):
    """Equation 12 of the paper for ReLU, its T for the given W."""
    hidden = torch.relu(x @ weight.T + bias)
    return math.sqrt(rho) * x - (hidden * multipliers) @ weight / math.sqrt(rho)


@pytest.mark.parametrize("rho", [0.5, 1.0, 2.25])
def test_it_is_the_layer_of_the_paper(rho):
    torch.manual_seed(0)
    sll = layers.SLLLinear(4, 6).double()
    layer = nn.Sequential(sll, layers.Rescale(math.sqrt(rho)).double())
    inner, shift = (t.detach() for t in sll.rows())  # K, |K|^2 <= 2, and c
    weight = math.sqrt(rho) * inner  # W = sqrt(rho) K with T = I: W W^T <= 2 rho
    assert float(torch.linalg.matrix_norm(weight, 2)) ** 2 <= 2 * rho * (1 + 1e-12)
    x = torch.randn(5, 4).double()
    expected = proposition(weight, math.sqrt(rho) * shift, torch.ones(6).double(), rho, x)
    torch.testing.assert_close(layer(x), expected)
    bound = float(onelip.lipschitz_bound(onelip.export(layer)))
    assert bound == pytest.approx(math.sqrt(rho), rel=1e-6)


def test_liplt_across_them_is_below_the_product_and_above_the_truth():
    """What every layer contracts is all that the head reads: the product does not see it."""
    torch.manual_seed(0)
    sll = layers.SLLLinear(6, 2, activation=nn.LeakyReLU(0.8))
    parts = [nn.Sequential(sll, layers.Rescale(1.2)) for _ in range(3)]
    head = nn.Linear(6, 2)
    head.weight.data = sll.weight.detach().clone()
    model = onelip.export(nn.Sequential(*parts, head).double())
    chain = read(model, (6,))
    x = torch.randn(8, 6).double()
    torch.testing.assert_close(chain.forward(x), model(x))
    product, liplt = float(bounds.Product().bound(chain)), float(bounds.LipLT().bound(chain))
    assert product == pytest.approx(float(onelip.lipschitz_bound(model)), rel=1e-6)
    truth = max(float(jacobian_norm(model, point)) for point in x)
    assert truth <= liplt < 0.99 * product


def test_the_factor_is_trained_or_not():
    assert layers.Rescale(2.0).factor.requires_grad
    assert not layers.Rescale(2.0, trained=False).factor.requires_grad
    with pytest.raises(ValueError, match="finite"):
        layers.Rescale(math.inf)
