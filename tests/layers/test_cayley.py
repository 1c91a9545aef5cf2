"""Cayley layers against the formula of the paper, written down frequency by frequency."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import norms
from onelip.layers import CayleyConv2d, CayleyLinear
from onelip.layers.cayley import cayley
from tests.oracles import full_transform

SHAPES = [(1, 1), (4, 4), (5, 3), (3, 5), (1, 4), (4, 1)]


def textbook(matrix: Tensor) -> Tensor:
    """``(I - A)(I + A)^{-1}`` over ``-2 V (I + A)^{-1}``."""
    rows, columns = matrix.shape
    if rows < columns:
        return textbook(matrix.T).T
    top, below = matrix[:columns], matrix[columns:]
    a = top - top.conj().T + below.conj().T @ below
    eye = torch.eye(columns, dtype=matrix.dtype)
    inverse = torch.linalg.solve(eye + a, eye)
    return torch.cat([(eye - a) @ inverse, -2 * below @ inverse])


def textbook_blocks(layer: CayleyConv2d) -> Tensor:
    """At every frequency: the sum over the taps, scaled, transformed."""
    raw = layer.raw_weight.detach()
    raw = raw * (layer.length.detach() / math.sqrt(float((raw**2).sum())))
    (height, width), size = layer.grid, raw.shape[-1]
    blocks = torch.zeros(height, width, *raw.shape[:2], dtype=torch.complex128)
    for i, j in itertools.product(range(height), range(width)):
        for u, v in itertools.product(range(size), range(size)):
            turns = i * (u - (size - 1) // 2) / height + j * (v - (size - 1) // 2) / width
            phase = complex(math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns))
            blocks[i, j] += raw[:, :, u, v] * phase
        blocks[i, j] = textbook(blocks[i, j])
    return blocks


def test_the_transform_of_batches(each):
    for shape, dtype in each(itertools.product(SHAPES, [torch.float64, torch.complex128])):
        matrices = torch.randn(2, 3, *shape, dtype=dtype)
        found = cayley(matrices)
        for i, j in itertools.product(range(2), range(3)):
            assert torch.allclose(found[i, j], textbook(matrices[i, j]), atol=1e-12)
        values = torch.linalg.svdvals(found)
        assert torch.allclose(values, torch.ones_like(values), atol=1e-13)


def test_values_of_the_convolution(each):
    for shape, size, kernel_size in each(
        itertools.product([(2, 2), (2, 3), (3, 2)], [(4, 4), (3, 5), (2, 1)], [1, 2, 3])
    ):
        layer = CayleyConv2d(*shape, kernel_size, image_size=size).double()
        nn.init.normal_(layer.bias)
        nn.init.constant_(layer.length, 1.7)
        x = torch.randn(2, shape[0], *size, dtype=torch.float64)
        expected = full_transform(x, textbook_blocks(layer)).real + layer.bias[:, None, None]
        assert torch.allclose(layer(x), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_of_the_dense_layer(shape):
    inputs, outputs = shape
    layer = CayleyLinear(inputs, outputs).double()
    nn.init.normal_(layer.bias)
    nn.init.constant_(layer.length, 2.5)
    raw = layer.raw_weight.detach()
    expected = textbook(2.5 * raw / raw.norm())
    x = torch.randn(3, inputs, dtype=torch.float64)
    assert torch.allclose(layer(x), x @ expected.T + layer.bias, atol=1e-13)
    exported = onelip.export(layer)
    assert type(exported) is nn.Linear
    assert torch.allclose(exported.weight, expected, atol=1e-13)


@pytest.mark.parametrize(
    "build", [lambda: CayleyLinear(4, 3), lambda: CayleyConv2d(2, 3, 3, image_size=4)]
)
def test_the_length_is_a_parameter_from_the_start(build):
    """Trap 13: one that is born in ``forward`` is unknown to the optimizer."""
    layer = build()
    names = {name for name, _ in layer.named_parameters()}
    assert names == {"raw_weight", "length", "bias"}
    assert layer.length.item() == pytest.approx(float(layer.raw_weight.detach().norm()), rel=1e-6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.length.detach().clone()
    x = torch.randn(5, 4) if isinstance(layer, CayleyLinear) else torch.randn(5, 2, 4, 4)
    (layer(x) * torch.randn_like(layer(x))).sum().backward()
    optimizer.step()
    assert float((layer.length.detach() - before).abs()) > 1e-4
    assert {name for name, _ in layer.named_parameters()} == names


def test_the_weight_counts_up_to_its_length():
    layer = CayleyConv2d(2, 3, 3, image_size=4).double()
    before = layer.weight.detach()
    layer.raw_weight.data *= 1e-3
    assert torch.allclose(layer.weight, before, atol=1e-13)
    layer.length.data *= 2
    assert not torch.allclose(layer.weight, before, atol=1e-2)


def test_without_weights_or_length_a_square_layer_is_the_identity():
    """Nothing is shifted: the free kernel is centred."""
    x = torch.randn(2, 3, 4, 5)
    for name in ("raw_weight", "length"):
        layer = CayleyConv2d(3, 3, 3, image_size=(4, 5))
        getattr(layer, name).data.zero_()
        assert torch.allclose(layer(x), x, atol=1e-6)
        assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e3, 1e6])
def test_orthogonal_at_every_length(scale):
    """I + A is never singular, and its inverse needs no care."""
    layer = CayleyLinear(6, 4).double()
    layer.length.data.fill_(scale)
    values = torch.linalg.svdvals(layer.weight.detach())
    assert torch.allclose(values, torch.ones_like(values), atol=1e-9)
    assert float(norms.dense(layer.weight)) >= float(values.max()) * (1 - 1e-14)


def test_after_violent_steps_the_dense_layer_is_orthogonal():
    layer = CayleyLinear(6, 4).double()
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
        assert torch.allclose(values, torch.ones_like(values), atol=1e-9)


def test_half_precision_is_left_to_the_product():
    layer = CayleyLinear(6, 4)
    expected = layer.weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.weight, expected)
    half = layer.bfloat16()
    assert half.weight.dtype == torch.bfloat16
    assert half(torch.randn(2, 6).bfloat16()).dtype == torch.bfloat16
    assert float(onelip.lipschitz_bound(half)) == pytest.approx(1, abs=1e-2)


def test_sizes_that_make_no_sense():
    with pytest.raises(ValueError, match="features must be positive"):
        CayleyLinear(0, 3)
