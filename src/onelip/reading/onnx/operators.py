"""ONNX's operators on values, by name; each is given its attributes and then its inputs.

Constants come as tensors, missing inputs as None. Attributes that are left out have the values that
the format says.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onelip.activations import ACTIVATIONS
from onelip.chains import Along, Elementwise
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.aten.operators import prelu
from onelip.reading.graphs import activation_products as products
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import sorting
from onelip.reading.graphs.bounded_products import REACHES, bounded_product
from onelip.reading.graphs.normalisations import Root, Squares
from onelip.reading.graphs.refusals import Unfinished, jumps, only_locally, unbounded_product
from onelip.reading.onnx import reductions, windows
from onelip.reading.onnx.attributes import Attributes
from onelip.reading.onnx.contractions import einsum
from onelip.reading.onnx.recurrent import recurrent
from onelip.reading.onnx.resizing import resize
from onelip.reading.onnx.shapes import SHAPES, moving

Operator = Callable[..., Any]


def _module(kind: type[nn.Module], **defaults: Any) -> Operator:
    """A module whose arguments are attributes, in this order and with these defaults."""

    def put(attributes: Attributes, value: Value) -> Value:
        settings = (attributes.get(name, default) for name, default in defaults.items())
        return on.layer(kind(*settings), value)

    return put


class Sine(nn.Module):
    """The sine, a quarter of a turn ahead for the cosine."""

    def __init__(self, cosine: bool) -> None:
        super().__init__()
        self.cosine = cosine

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.cos(x) if self.cosine else torch.sin(x)


REACHES[Sine] = lambda _: 1.0


class Arc(nn.Module):
    """The arc tangent, or the inverse of the hyperbolic sine."""

    def __init__(self, hyperbolic: bool) -> None:
        super().__init__()
        self.hyperbolic = hyperbolic

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.asinh(x) if self.hyperbolic else torch.atan(x)


def _elementwise(module: nn.Module, low: float, high: float) -> Operator:
    """A function with slopes between two numbers."""
    ends = torch.tensor([low, high], dtype=torch.float64)
    return lambda _, value: value.activated(Elementwise(module, ends[0], ends[1]))


def _binary(operation: Callable[[Any, Any], Any]) -> Operator:
    """An operation on two operands of one shape after broadcasting."""

    def operator(attributes: Attributes, first: Any, second: Any) -> Any:
        return operation(*_together(attributes, first, second))

    return operator


def _together(attributes: Attributes, *parts: Any) -> Sequence[Any]:
    if not all(isinstance(part, (Value, Tensor)) for part in parts):
        return parts
    if attributes.version < 7 and attributes.get("broadcast", 0) and len(parts) == 2:
        parts = (parts[0], _aligned(attributes, *parts))
    return attributes.frame.broadcast(parts)


def _aligned(attributes: Attributes, first: Any, second: Any) -> Any:
    """The second operand with its axes where the first's begin, as early versions said."""
    axis = attributes.get("axis")
    if axis is None or not isinstance(second, Tensor):
        return second
    count = len(attributes.frame.shape(first)) if isinstance(first, Value) else first.ndim
    return second.reshape(*second.shape, *(1,) * (count - axis % count - second.ndim))


def _add(first: Any, second: Any) -> Any:
    if isinstance(first, products.Cubic) or isinstance(second, products.Cubic):
        cubic, other = (first, second) if isinstance(first, products.Cubic) else (second, first)
        return cubic.plus(other) if isinstance(other, Value) else cubic.settled()
    if isinstance(first, Squares):
        return first.plus(second)
    return second.plus(first) if isinstance(second, Squares) else on.add(first, second)


def _subtract(first: Any, second: Any) -> Value:
    if isinstance(first, Squares) or isinstance(second, Squares):
        raise UnboundedModuleError(
            "a difference of squares is not known: a variance is read as the mean square of "
            "deviations, not as the mean of squares less the square of the mean"
        )
    return on.subtract(_settled(first), _settled(second))


def _settled(part: Any) -> Any:
    return part.settled() if isinstance(part, Unfinished) else part


def _multiply(first: Any, second: Any) -> Any:
    for x, other in ((first, second), (second, first)):
        if isinstance(x, (products.Cubic, Squares)) and isinstance(other, Tensor):
            return x.times(float(other)) if other.ndim == 0 else on.multiply(_settled(x), other)
        if isinstance(x, Squares) and x.plain and x.parts[0] is other:
            return products.Cubic(x.parts[0], 1 / x.divisor)
        if isinstance(x, Value) and isinstance(other, Value):
            square = Squares.product(x, other)
            if square is not None:
                return square
    for value, root in ((first, second), (second, first)):
        if isinstance(root, Root) and isinstance(value, Value):
            return root.divides(value) if root.inverse else on.multiply(value, root.settled())
    return on.multiply(_settled(first), _settled(second))


def _divide(first: Any, second: Any) -> Any:
    if isinstance(first, Squares) and isinstance(second, Tensor) and second.ndim == 0:
        return first.times(1 / float(second)) if float(second) else first.settled()
    if isinstance(second, Root) and isinstance(first, Value) and not second.inverse:
        return second.divides(first)
    if isinstance(second, Root) and isinstance(first, Tensor) and bool((first == 1).all()):
        return _reciprocal(None, second)
    if isinstance(first, Value) and isinstance(second, Value):
        softsign = products.softsign(first, second)
        if softsign is not None:
            return softsign
    return on.divide(_settled(first), _settled(second))


def _sum(attributes: Attributes, *parts: Any) -> Any:
    return functools.reduce(lambda a, b: _binary(on.add)(attributes, a, b), parts)


def _mean(attributes: Attributes, *parts: Any) -> Any:
    count = torch.tensor(float(len(parts)), dtype=torch.float64)
    return linear.divided(_sum(attributes, *parts), count)


def _power(attributes: Attributes, value: Any, exponent: Any) -> Any:
    if isinstance(exponent, Value) or not isinstance(value, (Value, Root)):
        raise only_locally("a power of, or with, what depends on the input")
    powers = exponent.flatten().unique()
    power = float(powers[0]) if len(powers) == 1 else math.nan
    if power == 1:
        return value
    if power == 2 and isinstance(value, Root) and not value.inverse:
        return value.of
    if power == 2 and isinstance(value, Value):
        whole = attributes.frame.broadcast([value, exponent])[0]
        return Squares((whole,)) if isinstance(whole, Value) else whole
    if power == 3 and isinstance(value, Value):
        return products.Cubic(value)
    if power == 0.5 and isinstance(value, Squares):
        return Root(value)
    raise only_locally(f"the power {power:g}")


def _tanh(_: Attributes, value: Any) -> Value:
    if isinstance(value, products.Cubic):
        return value.tanh()
    return on.layer(nn.Tanh(), _settled(value))


def _sqrt(_: Attributes, value: Any) -> Root:
    if isinstance(value, Squares):
        return Root(value)
    raise only_locally("a root, steep without limit near 0,")


def _reciprocal(_: Any, value: Any) -> Root:
    if isinstance(value, Root) and not value.inverse:
        return Root(value.of, inverse=True)
    raise only_locally("one over what depends on the input")


def _matmul(attributes: Attributes, first: Any, second: Any) -> Value:
    """Matrices along the last two axes, one of them constant."""
    if isinstance(first, Value) and isinstance(second, Value):
        return _bounded_matrices(attributes, first, second)
    if isinstance(first, Value):
        return _times_matrix(attributes, first, second)
    return _matrix_times(attributes, first, second)


def _bounded_matrices(attributes: Attributes, first: Value, second: Value) -> Value:
    """Of matrices whose numbers are bounded, as after a normalisation."""
    frame = attributes.frame
    shapes = [frame.shape(part) for part in (first, second)]
    if min(map(len, shapes)) > 1:
        heads = torch.broadcast_shapes(*(shape[:-2] for shape in shapes))
        spread = [
            frame.moved(part, functools.partial(_expanded, heads=heads)) for part in (first, second)
        ]
        if all(len(part.shape) > 1 for part in spread):
            product = bounded_product(*spread, matrices=True)
            if product is not None:
                return product
        else:
            frame.axis(spread[0], 0)
    raise unbounded_product("a product of two matrices")


def _expanded(x: Tensor, heads: Sequence[int]) -> Tensor:
    return x.expand(*heads, *x.shape[-2:])


def _times_matrix(attributes: Attributes, value: Value, matrix: Tensor) -> Value:
    """``value @ matrix``; of several matrices each takes its own part."""
    whole = attributes.frame.shape(value)
    if matrix.ndim > 2 and matrix.shape[:-2].numel() == 1 and matrix.ndim <= len(whole):
        matrix = matrix.reshape(matrix.shape[-2:])
    if matrix.ndim == 1:
        column = linear.dense(value, matrix[None], None)
        return linear.reshaped(column, column.shape[:-1])
    if matrix.ndim == 2:
        return linear.dense(value, matrix.T, None)
    return _stacked_matrices(attributes, value, matrix)


def _stacked_matrices(attributes: Attributes, value: Value, matrix: Tensor) -> Value:
    """A convolution in groups with kernels of one pixel: a group for each matrix."""
    frame, (n, m) = attributes.frame, matrix.shape[-2:]
    if len(value.shape) + (frame.batch is not None) == 1:  # one row for all matrices
        value = frame.moved(value, lambda x: x[None])
    *front, count, width = frame.shape(value)
    if width != n:
        raise UsageError(f"multiplies rows of {width} by matrices of {n} rows")
    heads = torch.broadcast_shapes(front, matrix.shape[:-2])
    value = frame.moved(value, lambda x: x.expand(*heads, count, n))
    if frame.batch is not None:
        matrix = frame.row(matrix, (*heads, n, m))
        heads = heads[1:]
    groups = math.prod(heads)
    kernels = matrix.expand(*heads, n, m).transpose(-1, -2).reshape(groups * m, n, 1, 1)
    flat = linear.reshaped(value, (groups, count, n))
    turned = linear.moved(flat, lambda x: x.transpose(2, 3).flatten(1, 2)[..., None])
    images = linear.convolution(turned, kernels, None, groups=groups)
    back = linear.moved(images, lambda x: x.view(len(x), groups, m, count).transpose(2, 3))
    return linear.reshaped(back, (*heads, count, m))


def _matrix_times(attributes: Attributes, matrix: Tensor, value: Value) -> Value:
    """``matrix @ value``: the transposed of ``value^T @ matrix^T``."""
    frame = attributes.frame
    if len(frame.shape(value)) == 1:
        if matrix.ndim == 1:
            return _times_matrix(attributes, value, matrix)
        column = frame.moved(value, lambda x: x[:, None])
        result = _matrix_times(attributes, matrix, column)
        return linear.reshaped(result, result.shape[:-1])
    if matrix.ndim == 1:
        row = _matrix_times(attributes, matrix[None], value)
        last = len(frame.shape(row)) - 2
        squeezed: Value = frame.moved(row, lambda x: x.squeeze(last))
        return squeezed
    if matrix.ndim == 2 and frame.axis(value, -2):
        linear.expect(value, f"(*, {matrix.shape[1]}, *)", value.shape[-2] == matrix.shape[1])
        return value.then(Along(value.shape, len(value.shape) - 2, matrix))
    turned = frame.moved(value, lambda x: x.transpose(-1, -2))
    product = _times_matrix(attributes, turned, matrix.transpose(-1, -2))
    back: Value = frame.moved(product, lambda x: x.transpose(-1, -2))
    return back


def _gemm(attributes: Attributes, first: Any, second: Any, bias: Any = None) -> Value:
    """``alpha A B + beta C``, A and B transposed or not."""

    def turned(part: Any) -> Any:
        if isinstance(part, Value):
            return attributes.frame.moved(part, lambda x: x.T)
        return part.T

    first = turned(first) if attributes.get("transA", 0) else first
    second = turned(second) if attributes.get("transB", 0) else second
    product: Value = on.times(_matmul(attributes, first, second), attributes.get("alpha", 1.0))
    if bias is None:
        return product
    added = on.times(bias, attributes.get("beta", 1.0))
    total: Value = _binary(on.add)(attributes, product, added)
    return total


def _where(attributes: Attributes, condition: Any, *parts: Any) -> Any:
    """A constant choice moves numbers."""
    if isinstance(condition, Tensor):
        return moving(1, 2)(attributes, condition, *parts)
    return products.chosen(condition, *parts)


@windows.on_images
def _prelu(attributes: Attributes, copies: int, value: Value, slope: Tensor) -> Value:
    if attributes.version < 7 and slope.ndim == 1:
        slope = slope.reshape(-1, *(1,) * (len(value.shape) - 1))
    axes = slope[0] if slope.ndim > len(value.shape) else slope
    by_channel = axes.ndim == len(value.shape) and axes[0].numel() == 1
    if axes.numel() > 1 and not by_channel:
        raise UnboundedModuleError("PRelu with other slopes than one per channel is not known")
    return prelu(value, axes.repeat(copies, *(1,) * (axes.ndim - 1)) if by_channel else axes)


def _clip(attributes: Attributes, value: Value, low: Any = None, high: Any = None) -> Value:
    if isinstance(low, Value) or isinstance(high, Value):
        raise UnboundedModuleError("a setting that depends on the input has no bound")
    least = attributes.get("min", -torch.inf) if low is None else float(low)
    most = attributes.get("max", torch.inf) if high is None else float(high)
    if least >= most:
        raise UsageError(f"clips between {least:g} and {most:g}: a constant")
    return on.layer(nn.Hardtanh(least, most), value)


def _selu(attributes: Attributes, value: Value) -> Value:
    elu = on.layer(nn.ELU(attributes.get("alpha", 1.6732631921768188)), value)
    return on.multiply(elu, attributes.get("gamma", 1.0507010221481323))


def _hard_sigmoid(attributes: Attributes, value: Value) -> Value:
    """``max(0, min(1, alpha x + beta))``."""
    slope, middle = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return on.layer(nn.Hardtanh(0.0, 1.0), on.add(on.multiply(value, slope), middle))


def _dropout(_: Attributes, value: Value, *inputs: Any) -> Value:
    """After the value, the rate and whether it is used."""
    if len(inputs) > 1 and inputs[1] is not None and bool(inputs[1]):
        raise UnboundedModuleError("dropout is random in training: model.eval() before the export")
    return value


def _top_k(attributes: Attributes, value: Value, count: Any = None) -> list[Any]:
    axis = attributes.frame.axis(value, attributes.get("axis", -1))
    largest, ordered = bool(attributes.get("largest", 1)), bool(attributes.get("sorted", 1))
    number = attributes.get("k") if count is None else int(count)
    return sorting.largest_first(value, number, axis, largest, ordered)


def _extremes(pairwise: Callable[[Any, Any], Any]) -> Operator:
    """Of two operands or more."""

    def operator(attributes: Attributes, *parts: Any) -> Any:
        return functools.reduce(lambda a, b: _binary(pairwise)(attributes, a, b), parts)

    return operator


def _larger(first: Any, second: Any) -> Any:
    for square, other in ((first, second), (second, first)):
        if isinstance(square, Squares) and isinstance(other, Tensor):
            return square.at_least(other)
    return sorting.maximum(_settled(first), _settled(second))


def _shrink(attributes: Attributes, value: Value) -> Value:
    threshold, bias = attributes.get("lambd", 0.5), attributes.get("bias", 0.0)
    if threshold != bias:
        raise jumps(f"Shrink with lambd {threshold:g} and bias {bias:g}")
    return on.layer(nn.Softshrink(threshold), value)


def _thresholded(attributes: Attributes, value: Value) -> Value:
    if attributes.get("alpha", 1.0) != 0:
        raise jumps("ThresholdedRelu with an alpha other than 0")
    return on.layer(nn.ReLU(), value)


def _swish(attributes: Attributes, value: Value) -> Value:
    """``x sigmoid(a x)``, which is SiLU of ``a x``, divided by a."""
    steep = float(attributes.get("alpha", 1.0))
    if steep == 0:
        return on.multiply(value, 0.5)
    silu = on.layer(nn.SiLU(), on.times(value, steep))
    return silu if steep == 1 else linear.divided(silu, torch.tensor(steep, dtype=torch.float64))


def _log(_: Attributes, value: Any) -> Value:
    """Of a sigmoid, or of squares above a number: other logarithms have no constant."""
    if isinstance(value, Squares):
        return value.log()
    if isinstance(value, Unfinished):
        raise only_locally("a logarithm, steep without limit near 0,")
    before = products.argument(value, nn.Sigmoid)
    if before is None:
        raise only_locally("a logarithm, steep without limit near 0,")
    return on.layer(nn.LogSigmoid(), before)


def _jumping(attributes: Attributes, *_: Any) -> Any:
    raise jumps(attributes.kind)


def _steep(attributes: Attributes, *_: Any) -> Any:
    raise only_locally(attributes.kind)


def _cast(attributes: Attributes, value: Value) -> Value:
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    if attributes.get("to") not in floats:
        raise jumps("rounding to whole numbers")
    return value


def _cast_like(_: Attributes, value: Value, other: Any) -> Value:
    if isinstance(other, Tensor) and not other.is_floating_point():
        raise jumps("rounding to whole numbers")
    return value


OPERATORS: dict[str, Operator] = {
    **SHAPES,
    **{
        known.onnx[0]: _module(kind, **known.onnx[1])
        for kind, known in ACTIVATIONS.items()
        if known.onnx is not None
    },
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Einsum": einsum(_times_matrix),
    "LRN": windows.response_norm,
    "Conv": windows.conv,
    "ConvTranspose": windows.conv_transpose,
    "BatchNormalization": reductions.batch_norm,
    "InstanceNormalization": reductions.instance_norm,
    "GroupNormalization": reductions.group_norm,
    "LayerNormalization": reductions.layer_norm,
    "RMSNormalization": reductions.rms_norm,
    "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool,
    "GlobalAveragePool": reductions.global_average,
    "GlobalMaxPool": windows.global_max,
    "Resize": resize,
    "Upsample": resize,
    "ReduceSum": reductions.total,
    "ReduceMean": reductions.mean,
    "ReduceSumSquare": reductions.squares,
    "ReduceL1": reductions.absolute_total,
    "ReduceL2": reductions.length,
    "ReduceMax": reductions.extremes(largest=True),
    "ReduceMin": reductions.extremes(largest=False),
    "ReduceLogSumExp": reductions.log_sum_exp,
    "CumSum": reductions.cumulative,
    "Softmax": reductions.softmax,
    "LogSoftmax": reductions.log_softmax,
    "Add": _binary(_add),
    "Sub": _binary(_subtract),
    "Mul": _binary(_multiply),
    "Div": _binary(_divide),
    "Neg": lambda _, x: on.multiply(x, -1.0),
    "Sum": _sum,
    "Mean": _mean,
    "Pow": _power,
    "Sqrt": _sqrt,
    "Reciprocal": _reciprocal,
    "PRelu": _prelu,
    "Selu": _selu,
    "Tanh": _tanh,
    "HardSigmoid": _hard_sigmoid,
    "Swish": _swish,
    "Shrink": _shrink,
    "ThresholdedRelu": _thresholded,
    "Log": _log,
    "Sin": _elementwise(Sine(cosine=False), -1.0, 1.0),
    "Cos": _elementwise(Sine(cosine=True), -1.0, 1.0),
    "Atan": _elementwise(Arc(hyperbolic=False), 0.0, 1.0),
    "Asinh": _elementwise(Arc(hyperbolic=True), 0.0, 1.0),
    "Clip": _clip,
    "Erf": lambda _, x: products.erf(x),
    "Greater": _binary(lambda a, b: products.Comparison.of(a, b, True)),
    "Less": _binary(lambda a, b: products.Comparison.of(a, b, False)),
    "Where": _where,
    "TopK": _top_k,
    "Max": _extremes(_larger),
    "Min": _extremes(sorting.minimum),
    "Identity": lambda _, x: x,
    "Dropout": _dropout,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent),
    "Cast": _cast,
    "CastLike": _cast_like,
    **dict.fromkeys(("ArgMax", "ArgMin", "Ceil", "Floor", "Round", "Sign", "Hardmax"), _jumping),
    **dict.fromkeys(("Equal", "GreaterOrEqual", "LessOrEqual", "IsInf", "IsNaN"), _jumping),
    **dict.fromkeys(("QuantizeLinear", "DynamicQuantizeLinear", "OneHot", "Mod"), _jumping),
    **dict.fromkeys(("NonZero", "NonMaxSuppression", "Unique"), _jumping),
    **dict.fromkeys(("Exp", "Tan", "Acos", "Asin", "Sinh", "Cosh", "Acosh", "Atanh"), _steep),
    **dict.fromkeys(("ReduceProd", "ReduceLogSum", "Det"), _steep),
}
"""Rules of the operators of the format, by name."""

_RANDOM = "is random: no function of the input"
_LOOP = "is a loop or a list, which is not unrolled: no bound is known"
_NO_EPSILON = "divides by a length or deviation without an epsilon, and jumps where it is 0"
_GATED = "multiplies values that depend on the input, as attention does: no global constant exists"
REASONS: dict[str, str] = {
    **dict.fromkeys(("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"), _RANDOM),
    **dict.fromkeys(("Loop", "Scan", "SequenceMap", "SequenceConstruct", "SequenceInsert"), _LOOP),
    **dict.fromkeys(("LpNormalization", "MeanVarianceNormalization"), _NO_EPSILON),
    **dict.fromkeys(("Attention", "LinearAttention", "SwiGLU"), _GATED),
}
"""Why there is no rule for other operators."""

TAKES_UNFINISHED = {
    *("Add", "Mul", "Div", "Pow", "Sqrt", "Reciprocal"),
    *("ReduceSum", "ReduceMean", "Where", "Identity", "Tanh", "Log", "Max", "Sub"),
}
"""Operators that make something of squares, roots and comparisons."""
