"""What a reviewer found in a day's readers: each was a bound too small, or another function."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from onelip.bounds import LipLT, Product
from onelip.errors import UnboundedModuleError
from onelip.reading import read_program


class Of(nn.Module):
    def __init__(self, function, *parts):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x):
        return self.function(x, *self.parts)


def chain_of(function, *parts, shape=(4,), dtype=torch.float64):
    module = Of(function, *parts).to(dtype).eval()
    chain = read_program(torch.export.export(module, (torch.zeros(1, *shape, dtype=dtype),)))
    x = torch.randn(5, *shape, dtype=dtype)
    assert torch.allclose(chain.exact().forward(x.double()).to(dtype), module(x), atol=1e-5)
    return chain


@pytest.mark.parametrize("beta", [0.1, 10.0])
def test_a_mish_of_another_softplus(beta):
    with pytest.raises(UnboundedModuleError, match="product of two values"):
        chain_of(lambda x: x * torch.tanh(F.softplus(x, beta=beta)))
    with pytest.raises(UnboundedModuleError, match="may jump"):
        chain_of(lambda x: torch.where(x > 20.0, x, F.softplus(x, beta=beta)))


def test_numbers_without_an_order():
    with pytest.raises(UnboundedModuleError, match="sorted=False"):
        chain_of(lambda x: torch.topk(x, 3, dim=1, sorted=False)[0])
    for largest in (True, False):
        found = chain_of(lambda x, largest=largest: torch.topk(x, 2, 1, largest)[0])
        assert float(Product().bound(found)) == pytest.approx(1)
    with pytest.raises(UnboundedModuleError, match="within each input"):
        chain_of(lambda x: torch.linalg.vector_norm(x, dim=[]))


def test_factors_that_float32_rounds():
    """2.2 is 2.2000000477 where the network runs."""
    single = float(torch.tensor(2.2))
    for method in (Product().bound, LipLT().bound):
        assert float(method(chain_of(lambda x: 2.2 * x, dtype=torch.float32))) >= single
        step = chain_of(lambda x: x - 2.2 * F.relu(x), dtype=torch.float32)
        assert single - 1 <= float(method(step)) <= single - 1 + 1e-5


def test_a_bias_is_added_once():
    """The skip of a block around a transposed convolution that has one."""
    up = nn.ConvTranspose2d(2, 2, 3, padding=1)
    chain_of(lambda x, up: up(x + F.relu(x)) + x, up, shape=(2, 4, 4))


def test_a_join_with_nothing():
    chain_of(lambda x: torch.cat([x[:, :, 3:], x, x[:, :, :0]], 2), shape=(2, 4, 4))
