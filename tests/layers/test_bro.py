"""Block reflectors against their formula, and where their columns depend on each other."""

import itertools

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import norms
from onelip.layers import BROConv2d, BROLinear
from onelip.layers.bro import block_reflector
from onelip.layers.fourier_layer import symbol
from tests.oracles import full_transform


def textbook(vectors: Tensor) -> Tensor:
    """``I - 2 V (V^H V)^{-1} V^H``."""
    gram = vectors.conj().T @ vectors
    inner = torch.linalg.solve(gram, vectors.conj().T)
    return torch.eye(len(vectors), dtype=vectors.dtype) - 2 * vectors @ inner


@pytest.mark.parametrize(("features", "rank"), [(1, 1), (4, 2), (7, 3), (6, 6), (5, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_the_reflector_of_batches(features, rank, dtype):
    vectors = torch.randn(2, 3, features, rank, dtype=dtype)
    found = block_reflector(vectors, features, features)
    for i, j in itertools.product(range(2), range(3)):
        assert torch.allclose(found[i, j], textbook(vectors[i, j]), atol=1e-11)
    assert torch.allclose(found, found.mH, atol=1e-13)
    values = torch.linalg.svdvals(found)
    assert torch.allclose(values, torch.ones_like(values), atol=1e-13)


@pytest.mark.parametrize(("inputs", "outputs"), [(6, 6), (6, 4), (4, 6), (1, 1), (1, 2), (2, 1)])
def test_values_of_the_dense_layer(inputs, outputs):
    layer = BROLinear(inputs, outputs).double()
    nn.init.normal_(layer.bias)
    assert layer.rank == max(1, max(inputs, outputs) // 2)
    expected = textbook(layer.raw_weight.detach())[:outputs, :inputs]
    x = torch.randn(3, inputs, dtype=torch.float64)
    assert torch.allclose(layer(x), x @ expected.T + layer.bias, atol=1e-12)
    exported = onelip.export(layer)
    assert type(exported) is nn.Linear
    assert torch.allclose(exported.weight, expected, atol=1e-12)
    values = torch.linalg.svdvals(expected)
    assert torch.allclose(values, torch.ones_like(values), atol=1e-12)


def test_values_of_the_convolution(each):
    """Full transforms and the formula, frequency by frequency."""
    for shape, size, rank in each(
        itertools.product([(2, 2), (2, 3), (3, 2)], [(4, 4), (3, 5), (2, 1)], [1, 2])
    ):
        layer = BROConv2d(*shape, 3, image_size=size, rank=rank).double()
        nn.init.normal_(layer.bias)
        (height, width), (inputs, outputs) = size, shape
        half = symbol(layer.raw_weight.detach(), size)
        blocks = torch.zeros(height, width, outputs, inputs, dtype=torch.complex128)
        for i, j in itertools.product(range(height), range(width)):
            mirrored = j > width // 2
            vectors = half[-i % height, width - j].conj() if mirrored else half[i, j]
            blocks[i, j] = textbook(vectors)[:outputs, :inputs]
        x = torch.randn(2, inputs, *size, dtype=torch.float64)
        expected = full_transform(x, blocks)
        assert float(expected.imag.abs().max()) < 1e-12
        assert torch.allclose(layer(x), expected.real + layer.bias[:, None, None], atol=1e-11)


def dependent_columns(features: int, rank: int, dtype: torch.dtype) -> dict[str, Tensor]:
    few = max(1, rank // 2)
    return {
        "zero": torch.zeros(features, rank, dtype=dtype),
        "one column": torch.randn(features, 1, dtype=dtype).expand(-1, rank).contiguous(),
        "rank 1": torch.randn(features, 1, dtype=dtype) @ torch.randn(1, rank, dtype=dtype),
        "rank half": torch.randn(features, few, dtype=dtype) @ torch.randn(few, rank, dtype=dtype),
        "tiny": 1e-30 * torch.randn(features, rank, dtype=dtype),
        "nearly": torch.ones(features, rank, dtype=dtype)
        + 1e-4 * torch.randn(features, rank, dtype=dtype),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64])
@pytest.mark.parametrize(("features", "rank"), [(4, 2), (64, 32), (256, 128)])
def test_columns_that_depend_on_each_other(dtype, features, rank):
    """A shift of 4 units, whatever the rank, stretches 64 features of rank 1 by 39 in float64."""
    slack = 64 * torch.finfo(dtype).eps  # sums of 256 products, in any order
    for name, vectors in dependent_columns(features, rank, dtype).items():
        found = block_reflector(vectors, features, features)
        wide = found.to(torch.promote_types(dtype, torch.float64))
        values = torch.linalg.svdvals(wide)
        assert float(values.max()) <= 1 + slack, name
        bound = float(norms.dense(found))
        assert float(values.max()) * (1 - 1e-13) <= bound <= 1 + slack + 1e-8, name
        if name != "nearly":
            assert float(values.min()) >= 1 - slack, name
    assert torch.equal(
        block_reflector(torch.zeros(3, 2), 3, 3), torch.eye(3)
    )  # no column, no reflection


def test_a_dependent_column_adds_nothing():
    vectors = torch.randn(6, 2, dtype=torch.float64)
    again = torch.cat([vectors, vectors @ torch.randn(2, 1, dtype=torch.float64)], 1)
    assert torch.allclose(block_reflector(again, 6, 6), textbook(vectors), atol=1e-12)


def test_a_zero_kernel_is_the_identity():
    layer = BROConv2d(3, 3, 3, image_size=(4, 5))
    layer.raw_weight.data.zero_()
    x = torch.randn(2, 3, 4, 5)
    assert torch.allclose(layer(x), x, atol=1e-6)


def test_the_gradient_is_that_of_the_formula():
    """The columns' lengths are taken as constants, since they do not matter."""
    vectors = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(5, 5, dtype=torch.float64)
    (expected,) = torch.autograd.grad((textbook(vectors) * weights).sum(), vectors)
    (found,) = torch.autograd.grad((block_reflector(vectors, 5, 5) * weights).sum(), vectors)
    assert torch.allclose(found, expected, atol=1e-11)


def test_after_violent_steps_the_dense_layer_is_orthogonal():
    layer = BROLinear(6, 4).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=30.0)
    before = layer.raw_weight.detach().clone()
    for _ in range(3):
        optimizer.zero_grad()
        y = layer(torch.randn(8, 6, dtype=torch.float64))
        (y * torch.randn_like(y)).sum().backward()
        optimizer.step()
    assert float((layer.raw_weight.detach() - before).norm()) > 1
    for other in (layer, onelip.export(layer)):
        values = torch.linalg.svdvals(other.weight)
        assert torch.allclose(values, torch.ones_like(values), atol=1e-12)


def test_half_precision_is_left_to_the_product():
    layer = BROLinear(6, 4)
    expected = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.weight, expected)
    half = layer.bfloat16()
    assert half.weight.dtype == torch.bfloat16
    assert float(onelip.lipschitz_bound(half)) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("rank", [0, 7])
def test_ranks_that_make_no_sense(rank):
    with pytest.raises(ValueError, match=f"rank must be between 1 and 6, got {rank}"):
        BROLinear(4, 6, rank=rank)
    with pytest.raises(ValueError, match=f"rank must be between 1 and 6, got {rank}"):
        BROConv2d(6, 4, 3, image_size=4, rank=rank)
