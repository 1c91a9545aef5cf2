"""The product of norms."""

import math

import pytest
import torch
from torch import Tensor, nn

from onelip.bounds import Product
from onelip.chains import Block, Chain, Dense, Elementwise, identity
from onelip.errors import NonFiniteError
from tests.bounds.random_chains import KINDS, jacobians, random_chain
from tests.networks import PUBLISHED, chain_of, published_network


def _norm(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight, 2))


@pytest.mark.parametrize(("layers", "width"), PUBLISHED)
def test_published_numbers(layers: int, width: int) -> None:
    expected = PUBLISHED[layers, width]["naive"]
    assert float(Product().bound(published_network(layers, width))) == pytest.approx(
        expected, rel=5e-6
    )


def test_is_above_every_jacobian() -> None:
    for seed in range(100):
        chain = random_chain(seed, KINDS)
        found, sampled = Product().logit_bounds(chain), jacobians(chain, seed, 3)
        above = 1 + 1e-12
        assert torch.linalg.matrix_norm(sampled, 2).max() <= found.network * above, seed
        assert (sampled.norm(dim=2).amax(0) <= found.per_class * above).all(), seed
        pairs = (sampled[:, :, None] - sampled[:, None]).norm(dim=3).amax(0)
        assert (pairs <= found.pairwise * above).all(), seed


def test_is_the_product() -> None:
    weights = [torch.randn(5, 3).double(), torch.randn(4, 5).double(), torch.randn(3, 4).double()]
    chain = chain_of(weights, nn.LeakyReLU(2.0))
    body = 2 * _norm(weights[0]) * 2 * _norm(weights[1])
    assert float(Product().bound(chain)) == pytest.approx(body * _norm(weights[2]), rel=1e-8)
    rows = weights[2]
    torch.testing.assert_close(
        Product().logit_bounds(chain).per_class, body * rows.norm(dim=1), rtol=1e-8, atol=0
    )
    pairs = Product().logit_bounds(chain).pairwise
    torch.testing.assert_close(pairs, body * torch.cdist(rows, rows), rtol=1e-8, atol=1e-12)
    assert torch.equal(pairs, pairs.mT)
    assert not pairs.diagonal().any()


def test_residual_blocks_add_and_known_constants_win() -> None:
    inner, outer = torch.randn(4, 3).double(), torch.randn(3, 4).double()
    block = Block(Dense(inner), Elementwise.of(nn.ReLU()), Dense(outer), identity((3,)))
    last = Dense(torch.eye(3))
    expected = 1 + _norm(inner) * _norm(outer)
    assert float(Product().bound(Chain((block,), last))) == pytest.approx(expected, rel=1e-8)
    known = Block(block.inner, block.nonlinearity, block.outer, block.skip, constant=1.0)
    found = Product().logit_bounds(Chain((known, block), last))
    assert float(found.network) == pytest.approx(expected, rel=1e-8)
    assert [float(layer) for layer in found.layers] == pytest.approx([1.0, expected], rel=1e-8)


def test_no_hidden_layer() -> None:
    assert float(Product().bound(Chain((), Dense(torch.eye(2) * 3)))) == pytest.approx(3, rel=1e-9)


def test_infinite_numbers_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="a weight is infinite"):
        Product().bound(chain_of([torch.full((2, 2), math.inf), torch.eye(2)]))
    huge = torch.eye(2).double() * 1e150
    with pytest.raises(NonFiniteError, match="beyond the largest float64"):
        Product().bound(chain_of([huge, huge, huge]))
    assert float(Product().bound(chain_of([huge, huge, huge, huge / 1e300]))) >= 1e300
