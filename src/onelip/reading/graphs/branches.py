r"""Residual blocks: two ways through a network that meet and are added.

A way with one nonlinearity and one without are a block :math:`H x + G \phi(W x)`. Of a way with
more of them the first and the last linear map become W and G, and what is between them is taken
as one nonlinearity, of which the product of its bounds is known. Two ways with nonlinearities
become one of which the sum of their bounds is known.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from onelip.chains import (
    Adjoint,
    Block,
    Chain,
    Composition,
    Convolution,
    Dense,
    LinearMap,
    Opaque,
    Scale,
    Sum,
    composed,
    identity,
    norm_of_parts,
)
from onelip.chains.value import Point, Value
from onelip.errors import UsageError
from onelip.norms.rounding import product, upward
from onelip.reading.graphs.concatenation import side_by_side
from onelip.reading.graphs.gradient_steps import gradient_step_constant
from onelip.reading.graphs.sparse_gradient_steps import sparse_step_constant
from onelip.reading.graphs.truncated_exponentials import polynomial


class Ways(nn.Module):
    """The sum of chains, each from the input of a branch to its end, in float64 on the CPU."""

    def __init__(self, *chains: Chain) -> None:
        super().__init__()
        self.chains = tuple(chain.exact() for chain in chains)

    def forward(self, x: Tensor) -> Tensor:
        """Sum of the chains, in the dtype and on the device of x."""
        y: Tensor = sum(chain.forward(x.double().cpu()) for chain in self.chains)  # type: ignore[assignment]
        return y.to(x)

    def bound(self) -> float:
        """The sum of the products of the bounds of the blocks."""
        total = torch.zeros((), dtype=torch.float64)
        for chain in self.chains:
            factors = [norm_of_parts(chain.last), *map(block_bound, chain.blocks)]
            total = upward(total + product(factors), 1)
        return float(total)


def block_bound(block: Block) -> Tensor:
    """``|H| + |G| L |W|``, or what is known of the block if that is less."""
    maps = [block.inner] if block.outer is None else [block.inner, block.outer]
    slope = torch.tensor(block.nonlinearity.constant, dtype=torch.float64)
    bound = product([slope, *map(norm_of_parts, maps)])
    if block.skip is not None:
        bound = upward(bound + norm_of_parts(block.skip), 1)
    return bound if block.constant is None else bound.clamp(max=block.constant)


def added(first: Value, second: Value) -> Value:
    """The sum of two values.

    Raises:
        UsageError: their shapes differ.
    """
    if first.shape != second.shape:
        raise UsageError(f"adds shapes {first.shape} and {second.shape}: make them equal")
    start = meeting(first.point, second.point)
    if first.point is second.point:
        together = side_by_side(first, second) or polynomial(first, second)
        if together is not None:
            return together
        return Value(start, (Sum((first.linear, second.linear)),))
    if first.point is start:
        return _residual(second, first.linear, start)
    if second.point is start:
        return _residual(first, second.linear, start)
    together = _one_hidden_layer(first, second)
    if together is not None:
        return together
    ways = Ways(*(Chain(tuple(v.point.path(start)), v.linear) for v in (first, second)))
    opaque = Opaque(ways, ways.bound(), first.shape)
    return Value(start).behind(Block(identity(start.shape), opaque))


def _residual(branch: Value, skip: LinearMap, start: Point) -> Value:
    """A branch with nonlinearities, plus a linear map of the point where it starts."""
    blocks = branch.point.path(start)
    first, last = blocks[0], blocks[-1]
    outer = branch.linear if last.outer is None else composed([last.outer, branch.linear])
    if len(blocks) == 1:
        if last.skip is not None:
            around = Sum((composed([last.skip, _unbiased(branch.linear)]), skip))
            return Value(start).behind(Block(last.inner, last.nonlinearity, outer, around))
        step = gradient_step_constant(last.inner, last.nonlinearity, outer, skip)
        constant = None if step is None else float(product([step, norm_of_parts(skip)]))
        block = Block(last.inner, last.nonlinearity, outer, skip, constant=constant)
        return Value(start).behind(block)
    inner: LinearMap = identity(start.shape)
    if first.skip is None:
        inner = first.inner
        blocks[0] = Block(identity(inner.outputs), first.nonlinearity, first.outer)
    if last.skip is None:
        blocks[-1] = Block(last.inner, last.nonlinearity)
    else:
        outer = branch.linear
    ways = Ways(Chain(tuple(blocks), identity(blocks[-1].outputs)))
    opaque = Opaque(ways, ways.bound(), blocks[-1].outputs)
    return Value(start).behind(Block(inner, opaque, outer, skip))


def _one_hidden_layer(first: Value, second: Value) -> Value | None:
    """The sum of two residual blocks that put the same nonlinearity on the same map, as one."""
    start = first.point.before
    blocks = first.point.block, second.point.block
    if start is None or start is not second.point.before or None in blocks:
        return None
    one, other = blocks
    assert one is not None
    assert other is not None
    if one.nonlinearity is not other.nonlinearity or one.inner is not other.inner:
        return None
    ways = [
        (block.outer, block.skip, value.linear) for block, value in ((one, first), (other, second))
    ]
    outers = [composed([outer, after]) for outer, _, after in ways if outer is not None]
    skips = [composed([skip, _unbiased(after)]) for _, skip, after in ways if skip is not None]
    if len(outers) < 2 or len(skips) < 2:
        return None
    outer, skip = Sum(tuple(outers)), Sum(tuple(skips))
    first_maps, (inner_rest, skip_rest) = _split_off([one.inner, skip])
    step = sparse_step_constant(inner_rest, one.nonlinearity, outer, skip_rest)
    constant = None if step is None else float(product([step, *map(norm_of_parts, first_maps)]))
    return Value(start).behind(Block(one.inner, one.nonlinearity, outer, skip, constant=constant))


def _split_off(maps: list[LinearMap]) -> tuple[list[LinearMap], list[LinearMap]]:
    """The maps with which all begin, every term of a sum included, and what is left of each."""
    terms = [linear.maps if isinstance(linear, Sum) else (linear,) for linear in maps]
    flat = [[list(t.maps) if isinstance(t, Composition) else [t] for t in parts] for parts in terms]
    every = [way for parts in flat for way in parts]
    count = 0
    while all(len(way) > count + 1 and way[count] is every[0][count] for way in every):
        count += 1
    rest = [[composed(way[count:]) for way in parts] for parts in flat]
    left = [parts[0] if len(parts) == 1 else Sum(tuple(parts)) for parts in rest]
    return every[0][:count], left


def meeting(first: Point, second: Point) -> Point:
    """The last point on the ways to both."""
    others = {id(point) for point in second.ancestry()}
    return next(point for point in first.ancestry() if id(point) in others)


def _unbiased(linear: LinearMap) -> LinearMap:
    """Map without its bias, which another way adds already."""
    if isinstance(linear, Adjoint | Dense | Convolution):
        return replace(linear, bias=None)
    if isinstance(linear, Scale):
        return replace(linear, shift=None)
    if isinstance(linear, Composition | Sum):
        return replace(linear, maps=tuple(map(_unbiased, linear.maps)))
    return linear
