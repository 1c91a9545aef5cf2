"""Rounds of maxima of pairs against torch's pooling."""

import math

import pytest
import torch
from torch import nn

from onelip.bounds.neighbourhood.dense_layers import layers
from onelip.bounds.neighbourhood.maxima import elementwise_blocks
from onelip.chains import Block, Chain, Dense, Opaque, Reshape, identity
from onelip.layers import ScaledMaxPool2d

POOLS = [
    (nn.MaxPool2d(2), (2, 4, 6)),
    (nn.MaxPool2d(3, 2, 1), (1, 6, 5)),
    (nn.MaxPool2d(3, 1, 1, dilation=1), (1, 3, 4)),
    (nn.MaxPool2d(2, dilation=2), (1, 5, 5)),
    (nn.MaxPool2d(2, ceil_mode=True), (2, 5, 5)),
    (nn.MaxPool2d(1), (1, 3, 3)),
    (nn.MaxPool2d((1, 4)), (1, 2, 4)),
    (nn.MaxPool1d(3, 2), (2, 7)),
    (nn.MaxPool3d(2), (1, 2, 4, 2)),
    (ScaledMaxPool2d(2), (2, 4, 4)),
    (ScaledMaxPool2d(3, 1), (1, 5, 4)),
]


@pytest.mark.parametrize(("pool", "shape"), POOLS, ids=str)
def test_they_are_the_same_function(pool, shape):
    x = torch.randn(50, *shape, dtype=torch.float64)
    x[:10] = x[:10].sign()  # ties
    x[10:20] = -x[10:20].abs() - 1  # padding is no number
    value = pool(x)
    block = Block(identity(shape), Opaque(pool, 9.0, tuple(value.shape[1:])))
    after = Dense(torch.randn(3, value[0].numel()).double())
    flat = Reshape(tuple(value.shape[1:]), (value[0].numel(),))
    chain = Chain(tuple(elementwise_blocks(block)), flat)
    torch.testing.assert_close(chain.forward(x), value.flatten(1), rtol=1e-14, atol=1e-14)
    moved = Block(identity(shape), block.nonlinearity, flat)
    parts = elementwise_blocks(moved)
    expected = value.flatten(1) @ after.weight.mT
    found = Chain(tuple(parts), after).forward(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("pool", "shape"), POOLS, ids=str)
def test_constants_of_the_rounds_hold(pool, shape):
    """The product of the rounds is no smaller than what one pixel shows, and not large."""
    outputs = tuple(pool(torch.zeros(1, *shape).double()).shape[1:])
    chain = Chain(
        (Block(identity(shape), Opaque(pool, 9.0, outputs)),),
        Reshape(outputs, (math.prod(outputs),)),
    )
    constants = [float(layer.constant) for layer in layers(chain)[0]]
    units = torch.eye(math.prod(shape), dtype=torch.float64).unflatten(1, shape)
    steepest = float(pool(units).flatten(1).norm(dim=1).max())  # it is in most windows
    assert steepest * (1 - 1e-12) <= math.prod(constants) <= 2 * steepest * (1 + 1e-9)
