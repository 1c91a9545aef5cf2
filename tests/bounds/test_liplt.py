"""LipLT: above every Jacobian, below the product, equal to a slow version and to published ones."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from onelip.bounds import LipLT, Product
from onelip.chains import (
    Block,
    Chain,
    Convolution,
    Dense,
    Elementwise,
    LinearMap,
    Opaque,
    Reshape,
    composed,
)
from onelip.chains.linear_map import Shape
from onelip.errors import NonFiniteError
from tests.bounds.random_chains import KINDS, LINEAR, SMOOTH, jacobians, random_chain
from tests.networks import PUBLISHED, chain_of, published_network

ABOVE = 1 + 1e-12
RELU = Elementwise.of(nn.ReLU())


def _norm(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight, 2))


def _slow(weights: list[Tensor], low: float, high: float) -> float:
    """Equation 19 of the paper, on matrices."""
    middle, half = (low + high) / 2, (high - low) / 2
    constants: list[float] = []
    for k, weight in enumerate(weights):
        path, total = weight, 0.0
        for j in reversed(range(k)):
            total += half * _norm(path) * constants[j]
            path = middle * path @ weights[j]
        constants.append(total + _norm(path))
    return constants[-1]


@pytest.mark.parametrize(("layers", "width"), PUBLISHED)
def test_published_numbers(layers: int, width: int) -> None:
    expected = PUBLISHED[layers, width]["liplt"]
    assert float(LipLT().bound(published_network(layers, width))) == pytest.approx(
        expected, rel=5e-6
    )


def test_refinement_stays_above_lipsdp() -> None:
    for key in ((2, 20), (2, 40), (5, 20)):
        chain, least = published_network(*key), PUBLISHED[key]["neuron"]
        plain, aol = float(LipLT().bound(chain)), float(LipLT(refinement="aol").bound(chain))
        sll = float(LipLT(refinement="sll").bound(chain))
        assert least * (1 - 1e-5) <= sll <= aol <= plain
        assert sll < 0.9 * plain


def _check(seed: int, chain: Chain, **options: str) -> None:
    found = LipLT(**options).logit_bounds(chain)  # type: ignore[arg-type]
    sampled, product = jacobians(chain, seed), Product().logit_bounds(chain)
    assert torch.linalg.matrix_norm(sampled, 2).max() <= found.network * ABOVE
    assert (sampled.norm(dim=2).amax(0) <= found.per_class * ABOVE).all()
    pairs = (sampled[:, :, None] - sampled[:, None]).norm(dim=3).amax(0)
    assert (pairs <= found.pairwise * ABOVE).all()
    assert found.network <= product.network
    assert (found.per_class <= product.per_class * ABOVE).all()
    assert (found.pairwise <= product.pairwise * ABOVE).all()


@pytest.mark.parametrize("seed", range(0, 60, 10))
def test_random_networks(seed: int) -> None:
    for i in range(seed, seed + 10):
        _check(i, random_chain(i, KINDS))


@pytest.mark.parametrize("refinement", ["aol", "sll"])
def test_random_networks_refined(refinement: str) -> None:
    for seed in range(100, 112):
        _check(seed, random_chain(seed, KINDS), refinement=refinement)


@pytest.mark.slow
@pytest.mark.parametrize("refinement", ["spectral", "aol", "sll"])
def test_a_thousand_random_networks(refinement: str) -> None:
    for seed in range(1000, 2000):
        _check(seed, random_chain(seed, KINDS), refinement=refinement)


def test_close_to_the_truth_where_signs_are_all_positive() -> None:
    """Positive weights, all units active: the linear path is all there is, up to the half."""
    weights = [torch.rand(6, 3).double(), torch.rand(6, 6).double(), torch.rand(2, 6).double()]
    product = _norm(weights[2] @ weights[1] @ weights[0])
    assert product <= float(LipLT().bound(chain_of(weights))) <= 2.0 * product


@pytest.mark.parametrize(
    ("activation", "low", "high"),
    [(nn.ReLU(), 0, 1), (nn.LeakyReLU(0.3), 0.3, 1), (nn.GELU(), -0.12905, 1.12905)],
)
def test_equals_the_slow_version(activation: nn.Module, low: float, high: float) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        sizes = [3, 5, 7, 4, 6, 2][: 2 + seed % 5]
        weights = [torch.randn(n, m).double() for m, n in pairwise(sizes)]
        expected = _slow(weights, low, high)
        assert float(LipLT().bound(chain_of(weights, activation))) == pytest.approx(
            expected, rel=1e-8
        )


def test_linear_networks_are_exact() -> None:
    for seed in range(25):
        chain = random_chain(seed, LINEAR)
        matrix = jacobians(chain, seed, 1)[0]
        found = LipLT().logit_bounds(chain)
        assert _norm(matrix) * (1 - 1e-13) <= float(found.network) <= _norm(matrix) * (1 + 1e-8)
        torch.testing.assert_close(found.per_class, matrix.norm(dim=1), rtol=1e-8, atol=1e-12)
        pairs = (matrix[:, None] - matrix).norm(dim=2)
        torch.testing.assert_close(found.pairwise, pairs, rtol=1e-8, atol=1e-12)


def test_pairs_agree_with_networks_of_one_difference() -> None:
    for seed in range(15):
        torch.manual_seed(seed)
        weights = [torch.randn(6, 4).double(), torch.randn(5, 6).double()]
        last = torch.randn(3, 5).double()
        found = LipLT().logit_bounds(chain_of([*weights, last]))
        for i in range(3):
            row = float(LipLT().bound(chain_of([*weights, last[i : i + 1]])))
            assert float(found.per_class[i]) == pytest.approx(row, rel=1e-8)
            for j in range(i):
                pair = float(LipLT().bound(chain_of([*weights, (last[i] - last[j])[None]])))
                assert float(found.pairwise[i, j]) <= pair * (1 + 1e-8)
                assert float(found.pairwise[i, j]) == pytest.approx(pair, rel=1e-8)


def test_pairs_are_symmetric_and_below_everything_else() -> None:
    for seed in range(20):
        found = LipLT().logit_bounds(random_chain(seed, SMOOTH))
        pairs, singles = found.pairwise, found.per_class
        assert torch.equal(pairs, pairs.mT)
        assert not pairs.diagonal().any()
        assert (pairs <= found.network * math.sqrt(2) * ABOVE).all()
        assert (pairs <= (singles[:, None] + singles) * ABOVE).all()
        assert (singles <= found.network).all()


def test_more_work_is_no_larger() -> None:
    for seed in range(8):
        chain = random_chain(seed, KINDS)
        works = (0, 1e3, 1e4, 1e5, 1e6, 1e9)
        bounds = [float(LipLT(work=work).bound(chain)) for work in works]
        assert all(more <= less * (1 + 1e-9) for less, more in pairwise(bounds))
        for work, bound in zip(works, bounds, strict=True):
            assert bound <= float(Product(work=work).bound(chain))


def test_a_known_constant_of_a_block_is_used() -> None:
    chain = chain_of([torch.randn(4, 4).double() for _ in range(4)])
    known = tuple(replace(block, constant=0.01) for block in chain.blocks)
    expected = 0.01**3 * _norm(chain.last(torch.eye(4).double()).mT)
    assert float(LipLT().bound(Chain(known, chain.last))) == pytest.approx(expected, rel=1e-8)
    middle = (chain.blocks[0], known[1], chain.blocks[2])
    assert float(LipLT().bound(Chain(middle, chain.last))) < float(LipLT().bound(chain))


def test_nothing_linear_passes_an_opaque_layer() -> None:
    weights = [torch.randn(4, 4).double() for _ in range(3)]
    softmax = Opaque(nn.Softmax(1), 1.0, (4,))
    chain = Chain(
        (Block(Dense(weights[0]), softmax), Block(Dense(weights[1]), RELU)), Dense(weights[2])
    )
    rest = _slow(weights[1:], 0, 1)
    assert float(LipLT().bound(chain)) == pytest.approx(_norm(weights[0]) * rest, rel=1e-8)


def test_zero_weights_and_one_neuron() -> None:
    zero = torch.zeros(3, 3).double()
    found = LipLT().logit_bounds(chain_of([torch.eye(3).double(), zero, torch.eye(3).double()]))
    assert float(found.network) == 0
    assert not found.pairwise.any()
    one = torch.tensor([[2.0]], dtype=torch.float64)
    assert float(LipLT().bound(chain_of([one, one, one]))) == pytest.approx(8, rel=1e-9)
    assert float(LipLT().bound(chain_of([one]))) == pytest.approx(2, rel=1e-9)


@pytest.mark.parametrize("power", [-200, 150])
def test_tiny_and_huge_weights(power: int) -> None:
    weights = [torch.randn(5, 4).double(), torch.randn(5, 5).double(), torch.randn(3, 5).double()]
    plain = LipLT().logit_bounds(chain_of(weights))
    scaled = [weights[0] * 10.0**power, weights[1], weights[2] * 10.0 ** (100 - power)]
    found = LipLT().logit_bounds(chain_of(scaled))
    assert float(found.network) == pytest.approx(float(plain.network) * 1e100, rel=1e-8)
    torch.testing.assert_close(found.pairwise / 1e100, plain.pairwise, rtol=1e-8, atol=1e-12)
    tiny = [weight * 1e-200 for weight in weights]
    assert 0 < float(LipLT().bound(chain_of(tiny))) < 1e-300
    with pytest.raises(NonFiniteError, match="beyond the largest"):
        LipLT().bound(chain_of([weight * 1e150 for weight in weights]))


def test_weights_that_are_not_finite() -> None:
    with pytest.raises(NonFiniteError, match="a weight is infinite or NaN"):
        LipLT().bound(chain_of([torch.full((2, 2), math.nan), torch.eye(2)]))


def test_no_state_is_kept_or_changed() -> None:
    chain = random_chain(7, KINDS)
    assert float(LipLT().bound(chain)) == float(LipLT().bound(chain))
    assert torch.equal(LipLT().logit_bounds(chain).pairwise, LipLT().logit_bounds(chain).pairwise)
    assert torch.equal(LipLT().logit_bounds(chain).per_class, LipLT().logit_bounds(chain).per_class)


def _cnn(
    shape: Shape, convolutions: list[tuple[int, int, int, int]], features: list[int]
) -> tuple[nn.Sequential, Chain]:
    """Convolutions (channels, kernel, stride, padding) and dense layers, and the chain of both."""
    parts: list[nn.Module] = []
    maps: list[LinearMap] = []
    for channels, kernel, stride, padding in convolutions:
        conv = nn.Conv2d(shape[0], channels, kernel, stride, padding)
        linear = Convolution(shape, conv.weight, conv.bias, (stride,) * 2, (padding,) * 2)
        parts, maps, shape = [*parts, conv, nn.ReLU()], [*maps, linear], linear.outputs
    size = math.prod(shape)
    flat: list[LinearMap] = [Reshape(shape, (size,))]
    parts.append(nn.Flatten())
    for outputs in features:
        dense = nn.Linear(size, outputs)
        maps.append(composed([*flat, Dense(dense.weight, dense.bias)]))
        parts, flat, size = [*parts, dense, nn.ReLU()], [], outputs
    blocks = tuple(Block(linear, RELU) for linear in maps[:-1])
    return nn.Sequential(*parts[:-1]), Chain(blocks, maps[-1])


def test_a_convolutional_network_of_torch() -> None:
    model, chain = _cnn((1, 12, 12), [(4, 3, 1, 1), (6, 4, 2, 1)], [20, 5])
    x = torch.rand(2, 1, 12, 12)
    torch.testing.assert_close(chain.forward(x), model(x))
    found, product = LipLT().logit_bounds(chain), Product().logit_bounds(chain)
    sampled = jacobians(chain.exact(), 0, 3)
    assert torch.linalg.matrix_norm(sampled, 2).max() <= found.network * ABOVE
    assert found.network < 0.7 * product.network
    assert LipLT(work=0).bound(chain) <= Product(work=0).bound(chain)


@pytest.mark.slow
def test_4c3f_on_mnist_takes_minutes() -> None:
    layers = [(32, 3, 1, 1), (32, 4, 2, 1), (64, 3, 1, 1), (64, 4, 2, 1)]
    _, chain = _cnn((1, 28, 28), layers, [512, 512, 10])
    found, product = LipLT().logit_bounds(chain), Product().logit_bounds(chain)
    assert found.network < product.network / 3
