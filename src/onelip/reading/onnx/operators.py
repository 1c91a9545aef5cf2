"""ONNX's operators on values, by name; each is given its attributes and then its inputs.

Constants come as tensors, missing inputs as None. Attributes that are left out have the values that
the format says.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from onelip.activations import ACTIVATIONS
from onelip.chains import Elementwise
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.graphs import activation_products as products
from onelip.reading.graphs import arithmetic, sorting
from onelip.reading.graphs import operations as on
from onelip.reading.graphs.bounded_products import REACHES
from onelip.reading.graphs.refusals import jumps, only_locally
from onelip.reading.onnx import arithmetic as combined
from onelip.reading.onnx import matrices, reductions, windows
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
    return on.prelu(value, axes.repeat(copies, *(1,) * (axes.ndim - 1)) if by_channel else axes)


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
    "Gemm": matrices.gemm,
    "MatMul": matrices.matmul,
    "Einsum": einsum(matrices.times_matrix),
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
    "Add": combined.binary(arithmetic.add),
    "Sub": combined.subtract,
    "Mul": combined.binary(arithmetic.multiply),
    "Div": combined.binary(arithmetic.divide),
    "Neg": lambda _, x: on.multiply(x, -1.0),
    "Sum": combined.total,
    "Mean": combined.mean,
    "Pow": combined.power,
    "Sqrt": combined.single(arithmetic.sqrt),
    "Reciprocal": combined.single(arithmetic.reciprocal),
    "PRelu": _prelu,
    "Selu": _selu,
    "Tanh": combined.single(arithmetic.tanh),
    "HardSigmoid": _hard_sigmoid,
    "Swish": _swish,
    "Shrink": _shrink,
    "ThresholdedRelu": _thresholded,
    "Log": combined.single(arithmetic.log),
    "Sin": _elementwise(Sine(cosine=False), -1.0, 1.0),
    "Cos": _elementwise(Sine(cosine=True), -1.0, 1.0),
    "Atan": _elementwise(Arc(hyperbolic=False), 0.0, 1.0),
    "Asinh": _elementwise(Arc(hyperbolic=True), 0.0, 1.0),
    "Clip": _clip,
    "Erf": lambda _, x: products.erf(x),
    "Greater": combined.binary(lambda a, b: products.Comparison.of(a, b, True)),
    "Less": combined.binary(lambda a, b: products.Comparison.of(a, b, False)),
    "Where": _where,
    "TopK": _top_k,
    "Max": combined.extremes(arithmetic.larger),
    "Min": combined.extremes(sorting.minimum),
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
