"""Small random networks of every kind that a chain can hold, and slow constants of them."""

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from onelip.chains import (
    Block,
    Chain,
    Convolution,
    Dense,
    Elementwise,
    GroupSorting,
    LinearMap,
    Nonlinearity,
    Opaque,
    Reshape,
    Scale,
    composed,
    identity,
)
from onelip.chains.linear_map import Shape
from onelip.layers import MaxMin


def _of(module: nn.Module) -> Callable[[Shape], Nonlinearity]:
    return lambda _: Elementwise.of(module)


def _prelu(shape: Shape) -> Nonlinearity:
    module = nn.PReLU(shape[0]).double()
    module.weight.data = torch.rand(shape[0]).double() * 2 - 0.5
    slope = module.weight.detach().reshape(-1, *[1] * (len(shape) - 1))
    return Elementwise(module, slope.clamp_max(1), slope.clamp_min(1))


def _opaque(shape: Shape) -> Nonlinearity:
    if len(shape) == 3 and shape[1] % 2 == shape[2] % 2 == 0:
        return Opaque(nn.MaxPool2d(2), 1.0, (shape[0], shape[1] // 2, shape[2] // 2))
    return Opaque(nn.Softmax(1), 1.0, shape)


SMOOTH: dict[str, Callable[[Shape], Nonlinearity]] = {
    "relu": _of(nn.ReLU()),
    "leaky": _of(nn.LeakyReLU(0.2)),
    "gelu": _of(nn.GELU()),
    "hardswish": _of(nn.Hardswish()),
    "tanh": _of(nn.Tanh()),
    "prelu": _prelu,
    "max-min": lambda _: GroupSorting(MaxMin(), 2),
}
KINDS = SMOOTH | {"opaque": _opaque}
LINEAR = {"identity": _of(nn.Identity())}


def random_chain(seed: int, kinds: dict[str, Callable[[Shape], Nonlinearity]]) -> Chain:
    """Dense, convolutional and residual blocks; deterministic."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    shape: Shape = draw.choice([(3,), (5,), (2, 4, 4), (1, 6, 6)])
    blocks: list[Block] = []
    for _ in range(draw.choice([0, 1, 2, 3, 4])):
        make = kinds[draw.choice(list(kinds))]
        if draw.random() < 0.3 and make is not _opaque:
            blocks.append(_residual(shape, draw, make))
        else:
            inner = _linear(shape, draw)
            blocks.append(Block(inner, make(inner.outputs)))
        shape = blocks[-1].outputs
    return Chain(tuple(blocks), _head(shape, draw.choice([1, 2, 3, 5])))


def _weight(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _linear(shape: Shape, draw: random.Random) -> LinearMap:
    if len(shape) == 3 and draw.random() < 0.6:
        channels = draw.choice([2, 4])
        weight = _weight(channels, shape[0], 3, 3) / 4
        return Convolution(shape, weight, _weight(channels), padding=(1, 1))
    return _head(shape, draw.choice([2, 4, 6]), draw.choice([0.5, 1, 2]))


def _head(shape: Shape, outputs: int, size: float = 1.0) -> LinearMap:
    count = int(torch.tensor(shape).prod())
    dense = Dense(_weight(outputs, count) * size / count**0.5, _weight(outputs))
    return composed([Reshape(shape, (count,)), dense]) if len(shape) == 3 else dense


def _residual(shape: Shape, draw: random.Random, make: Callable[[Shape], Nonlinearity]) -> Block:
    inner: LinearMap
    if len(shape) == 3:
        inner = Convolution(shape, _weight(4, shape[0], 3, 3) / 4, padding=(1, 1))
        outer = Convolution(inner.outputs, _weight(shape[0], 4, 3, 3) / 4, padding=(1, 1))
        return Block(inner, make(inner.outputs), outer, _skip(shape, draw))
    inner = Dense(_weight(4, shape[0]))
    return Block(inner, make((4,)), Dense(_weight(shape[0], 4) / 2), _skip(shape, draw))


def _skip(shape: Shape, draw: random.Random) -> LinearMap | None:
    return draw.choice([identity(shape), Scale(shape, torch.tensor(0.7).double()), None])


def jacobians(chain: Chain, seed: int, count: int = 4) -> Tensor:
    """At random inputs of several sizes: ``(count, outputs, inputs)``."""
    torch.manual_seed(seed)
    sizes = torch.tensor([0.1, 1.0, 10.0])[torch.randint(3, (count,))]
    inputs = torch.randn(count, *chain.inputs, dtype=torch.float64)
    return torch.stack([_jacobian(chain, size * x) for size, x in zip(sizes, inputs, strict=True)])


def _jacobian(chain: Chain, x: Tensor) -> Tensor:
    found = torch.autograd.functional.jacobian(lambda v: chain.forward(v[None])[0].flatten(), x)
    assert isinstance(found, Tensor)
    return found.flatten(1)
