"""Values that flow through a network while it is read: linear maps of a nonlinearity's output.

A ``Point`` is the network's input or what a block returns; a ``Value`` is a linear map of a point.
Points know the point before them, so they form a tree, and the way from its root to the point of
the network's output is the chain.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Optional

import torch
from torch import Tensor, nn

from onelip.chains import (
    Block,
    Chain,
    Dense,
    LinearMap,
    Nonlinearity,
    Scale,
    Shape,
    composed,
    identity,
)
from onelip.errors import UsageError


@dataclass(frozen=True, eq=False)
class Point:
    """The input, or what a block returns.

    Attributes:
        shape: without the batch.
        like: a tensor with the dtype and the device of the network.
        before: the point that the block takes, None for the input.
        block: the block that leads here.
        source: the value that the block's nonlinearity was put on, where it is a plain layer.
    """

    shape: Shape
    like: Tensor
    before: Optional["Point"] = None
    block: Block | None = None
    source: Optional["Value"] = None

    def path(self, start: Optional["Point"] = None) -> list[Block]:
        """The blocks from another point, or from the input, to this one."""
        way = itertools.takewhile(lambda point: point is not start, self.ancestry())
        return [point.block for point in way if point.block is not None][::-1]

    def ancestry(self) -> Iterator["Point"]:
        """The point, the one before it, and so on to the input."""
        point: Point | None = self
        while point is not None:
            yield point
            point = point.before


class Line(NamedTuple):
    """Another value times a number, plus a number."""

    value: "Value"
    factor: float
    shift: float


@dataclass(frozen=True, eq=False)
class Value:
    """A linear map of a point: the maps one after the other.

    Attributes:
        point: the input, or what a block returns.
        maps: the first first.
        line: the value of which it is a multiple plus a number, where it was made as that; readers
            recognise activations by it.
    """

    point: Point
    maps: tuple[LinearMap, ...] = ()
    line: Line | None = None

    @classmethod
    def entering(cls, shape: Shape, like: Tensor) -> "Value":
        """The input of a network."""
        return cls(Point(shape, like))

    @property
    def shape(self) -> Shape:
        """Without the batch."""
        return self.maps[-1].outputs if self.maps else self.point.shape

    def on_line(self, value: "Value", factor: Tensor | float, shift: Tensor | float) -> "Value":
        """Value that knows of which other one it is a multiple plus a number."""
        numbers = [torch.as_tensor(number) for number in (factor, shift)]
        if any(number.numel() != 1 for number in numbers):
            return self
        return replace(self, line=Line(value, *(float(number) for number in numbers)))

    def lines(self) -> "Iterator[Line]":
        """Values of which it is a multiple plus a number, itself first."""
        line = Line(self, 1.0, 0.0)
        while True:
            yield line
            before = line.value.line
            if before is None:
                return
            shift = line.shift + line.factor * before.shift
            line = Line(before.value, line.factor * before.factor, shift)

    @property
    def linear(self) -> LinearMap:
        """The maps in one."""
        return composed(self.maps or [identity(self.point.shape)])

    def then(self, linear: LinearMap) -> "Value":
        """Value with one more linear map; a shift is merged into the map before it."""
        merged = _merged(self.maps[-1], linear) if self.maps else None
        if merged is not None:
            return Value(self.point, (*self.maps[:-1], merged))
        return Value(self.point, (*self.maps, linear))

    def activated(self, nonlinearity: Nonlinearity, name: str = "") -> "Value":
        """A plain layer: the nonlinearity of this value."""
        block = Block(self.linear, nonlinearity, name=name)
        return Value(Point(block.outputs, self.point.like, self.point, block, self))

    def behind(self, block: Block) -> "Value":
        """Output of a block that takes this value's point."""
        return Value(Point(block.outputs, self.point.like, self.point, block))

    def through(self, chain: Chain) -> "Value":
        """Output of a network that takes this value."""
        value = self
        for block in chain.blocks:
            value = value.behind(block.after(value.maps) if value.maps else block)
        return value.then(chain.last)

    def named(self, name: str) -> "Value":
        """Value whose block has a name, if it had none."""
        block = self.point.block
        if block is None or block.name:
            return self
        return replace(self, point=replace(self.point, block=replace(block, name=name)))

    def chain(self) -> Chain:
        """The network whose output this is."""
        return Chain(tuple(self.point.path()), self.linear)


def shared_maps(first: Value, second: Value) -> int:
    """Number of maps that two values of one point have in common at the beginning."""
    pairs = zip(first.maps, second.maps, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] is pair[1], pairs))


Operand = Value | Tensor | float


def constant(operand: Operand, value: Value) -> tuple[Tensor, int]:
    """Constant operand of a value, and how often it may have been rounded.

    A Python number is rounded to the dtype of the network when it is used, which is as much as
    many roundings in float64.
    """
    if not isinstance(operand, Tensor):
        number = torch.tensor(operand, dtype=torch.float64)
        dtype = value.point.like.dtype
        single = torch.equal(number.to(dtype).double(), number)
        return number, 0 if single else int(torch.finfo(dtype).eps * 2.0**53)
    if operand.ndim == len(value.shape) + 1 and len(operand) == 1:
        operand = operand[0]
    fits = operand.ndim <= len(value.shape)
    if not fits or torch.broadcast_shapes(operand.shape, value.shape) != value.shape:
        raise UsageError(f"shapes {tuple(operand.shape)} and {value.shape} make a larger one")
    return operand if operand.is_floating_point() else operand.double(), 0


def like_of(model: nn.Module) -> Tensor:
    """An empty tensor with the dtype and the device of a model's numbers."""
    tensors = [*model.parameters(), *model.buffers()]
    return next((t for t in tensors if t.is_floating_point()), torch.empty(())).new_empty(())


def _merged(before: LinearMap, after: LinearMap) -> LinearMap | None:
    if not isinstance(after, Scale):
        return None
    if isinstance(before, Dense) and before.bias is None:
        shift = _shift(after)
        if shift is not None:
            return Dense(before.weight, shift.to(before.weight.dtype).expand(before.outputs))
    if isinstance(before, Scale):
        shift = _shift(before)
        if shift is not None:
            return replace(after, shift=after.affine(shift.double()))
    return None


def _shift(linear: Scale) -> Tensor | None:
    """Shift of a map that only adds, else None."""
    one = linear.factor.ndim == 0 and not linear.operations and float(linear.factor) == 1
    return linear.shift if one else None
