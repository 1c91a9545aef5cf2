"""Operations of graphs on values: arithmetic with constants, and layers given by tensors."""

import functools
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from onelip.chains import linear_layers as linear
from onelip.chains.linear_layers import Sides
from onelip.chains.value import Operand, Value, constant
from onelip.chains.volume_convolution import Triple
from onelip.errors import UnboundedModuleError
from onelip.lipschitz import read_module
from onelip.lipschitz.torch_modules import sides_along, sides_of
from onelip.norms.convolutions import Pair, pair
from onelip.reading.graphs.activation_products import gated
from onelip.reading.graphs.branches import added
from onelip.reading.graphs.refusals import only_locally


def add(first: Operand, second: Operand) -> Value:
    """Two values, or a value and a constant."""
    if isinstance(first, Value):
        if isinstance(second, Value):
            return added(first, second)
        shift = constant(second, first)[0]
        return linear.shifted(first, shift).on_line(first, 1.0, shift)
    assert isinstance(second, Value)
    return add(second, first)


def total(parts: Sequence[Operand]) -> Operand:
    """The sum of values and constants."""

    def plus(first: Operand, second: Operand) -> Operand:
        if isinstance(first, Value) or isinstance(second, Value):
            return add(first, second)
        return first + second

    return functools.reduce(plus, parts)


def multiply(first: Operand, second: Operand) -> Value:
    """Product with a constant; of two values, the products that are an activation."""
    if isinstance(first, Value):
        if isinstance(second, Value):
            return gated(first, second)
        factor, operations = constant(second, first)
        return linear.scaled(first, factor, operations=operations).on_line(first, factor, 0.0)
    assert isinstance(second, Value)
    return multiply(second, first)


def subtract(first: Operand, second: Operand) -> Value:
    """``first - second``."""
    return add(first, multiply(second, -1.0) if isinstance(second, Value) else -second)


def times(operand: Any, number: float) -> Any:
    """A value or a constant times a number, which is mostly 1."""
    if number == 1:
        return operand
    return multiply(operand, number) if isinstance(operand, Value) else number * operand


def divide(first: Operand, second: Operand) -> Value:
    """Quotient by a constant."""
    if not isinstance(first, Value) or isinstance(second, Value):
        raise only_locally("a division by what depends on the input")
    divisor, operations = constant(second, first)
    quotient = linear.divided(first, divisor, operations)
    return quotient.on_line(first, 1 / divisor.double(), 0.0)


def matmul(value: Operand, weight: Operand) -> Value:
    """A value times a constant matrix."""
    return affine(value, weight.T if isinstance(weight, Tensor) else weight)


def affine(value: Operand, weight: Operand, bias: Tensor | None = None) -> Value:
    """``nn.functional.linear``."""
    if not isinstance(value, Value) or not isinstance(weight, Tensor) or weight.ndim != 2:
        raise UnboundedModuleError("only a product with a constant matrix from the right is known")
    return linear.dense(value, weight, bias)


def convolve(
    value: Value,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sequence[int] = (1,),
    sides: Sequence[Pair] | Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> Value:
    """Along one axis, as images of one row, along two, or along three."""
    if weight.ndim == 5:
        return linear.volume_convolution(
            value,
            weight,
            bias,
            stride=_triple(stride),
            sides=_sides_of_volumes(weight, sides, _triple(dilation)),
            dilation=_triple(dilation),
            groups=groups,
        )
    flat = weight.ndim == 3
    if flat:
        linear.expect(value, "(channels, length)", len(value.shape) == 2)
        value = linear.reshaped(value, (value.shape[0], 1, value.shape[1]))
        weight, stride, dilation = weight[:, :, None], (1, stride[0]), (1, dilation[0])
    taps = pair_of(dilation)
    image = linear.convolution(
        value,
        weight,
        bias,
        stride=pair_of(stride),
        sides=_sides(weight, sides, taps, flat),
        dilation=taps,
        groups=groups,
    )
    return linear.reshaped(image, (image.shape[0], image.shape[2])) if flat else image


def _sides_of_volumes(weight: Tensor, sides: Any, dilation: Triple) -> list[Pair]:
    """Numbers before and after, along each of three axes."""
    if isinstance(sides, str):
        return sides_along(weight, sides, dilation)
    return sides_along(weight, _triple(sides), dilation) if isinstance(sides[0], int) else sides


def _triple(numbers: Sequence[int]) -> Triple:
    """One number for all axes, or one for each."""
    depth, height, width = numbers if len(numbers) == 3 else (numbers[0],) * 3
    return depth, height, width


def _sides(weight: Tensor, sides: Any, dilation: Pair, flat: bool) -> Sides:
    if isinstance(sides, str):
        return sides_of(weight, sides, dilation)
    if isinstance(sides[0], int):
        height, width = (0, sides[0]) if flat else pair_of(sides)
        return (height, height), (width, width)
    return ((0, 0), sides[0]) if flat else (sides[0], sides[1])


def batch_norm(
    value: Value,
    *,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    epsilon: float,
    training: bool = False,
) -> Value:
    """Batch normalisation with fixed statistics."""
    if training or mean is None or variance is None:
        raise UnboundedModuleError("divides by batch statistics: model.eval() before the export")
    return linear.standardised(value, mean, variance, weight=weight, bias=bias, epsilon=epsilon)


def layer(module: nn.Module, value: Value) -> Value:
    """A torch module without weights."""
    if not isinstance(value, Value):
        raise UnboundedModuleError("a setting that depends on the input has no bound")
    return read_module(module.eval(), value)


def prelu(value: Value, weight: Tensor) -> Value:
    """PReLU with one slope, or one per channel."""
    module = nn.PReLU(weight.numel())
    module.weight = nn.Parameter(weight.detach().flatten(), requires_grad=False)
    return layer(module, value)


def pair_of(numbers: Sequence[int]) -> Pair:
    """One number for both axes, or one for each."""
    return pair(numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1]))
