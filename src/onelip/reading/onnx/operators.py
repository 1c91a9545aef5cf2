"""ONNX's operators on values, by name; each is given its attributes and then its inputs.

Constants come as tensors, missing inputs as None. Attributes that are left out have the values that
the format says.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from onelip.activations import ACTIVATIONS
from onelip.chains.linear_layers import transposed_convolution
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.aten.operators import prelu
from onelip.reading.graphs import activation_products as products
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import sorting
from onelip.reading.onnx import windows as onnx_windows
from onelip.reading.onnx.shapes import SHAPES

Attributes = dict[str, Any]
Operator = Callable[..., Any]


def _module(kind: type[nn.Module], **defaults: Any) -> Operator:
    """A module whose arguments are attributes, in this order and with these defaults."""

    def put(attributes: Attributes, value: Value) -> Value:
        return on.layer(kind(*({**defaults, **attributes}[name] for name in defaults)), value)

    return put


def _batch_norm(attributes: Attributes, value: Value, *inputs: Tensor) -> Value:
    weight, bias, mean, variance = inputs
    return on.batch_norm(
        value,
        weight=weight,
        bias=bias,
        mean=mean,
        variance=variance,
        epsilon=attributes.get("epsilon", 1e-5),
        training=bool(attributes.get("training_mode", 0)),
    )


def _gemm(attributes: Attributes, value: Any, weight: Tensor, bias: Any = None) -> Value:
    """``alpha value weight + beta bias``, the weight transposed or not."""
    if attributes.get("transA", 0):
        raise UsageError("transposes the batch: transA=0")
    matrix = weight.T if attributes.get("transB", 0) else weight
    product: Value = on.times(on.matmul(value, matrix), attributes.get("alpha", 1.0))
    return product if bias is None else on.add(product, on.times(bias, attributes.get("beta", 1.0)))


def _prelu(_: Attributes, value: Value, slope: Tensor) -> Value:
    axes = slope[0] if slope.ndim > len(value.shape) else slope
    by_channel = axes.ndim == len(value.shape) and axes[0].numel() == 1
    if axes.numel() > 1 and not by_channel:
        raise UnboundedModuleError("PRelu with other slopes than one per channel is not known")
    return prelu(value, axes)


def _clip(attributes: Attributes, value: Value, low: Any = None, high: Any = None) -> Value:
    least = attributes.get("min", -torch.inf) if low is None else float(low)
    most = attributes.get("max", torch.inf) if high is None else float(high)
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


def _lengths(attributes: Attributes, value: Value, axes: Tensor | None = None) -> Value:
    along = attributes.get("axes") if axes is None else [int(a) for a in axes]
    return sorting.lengths(value, 2, along, bool(attributes.get("keepdims", 1)))


def _top_k(attributes: Attributes, value: Value, count: Tensor) -> list[Any]:
    axis, largest = attributes.get("axis", -1), bool(attributes.get("largest", 1))
    ordered = bool(attributes.get("sorted", 1))
    return sorting.largest_first(value, int(count), axis, largest, ordered)


def _conv_transpose(
    attributes: Attributes, value: Value, weight: Tensor, bias: Tensor | None = None
) -> Value:
    pads = attributes.get("pads", [0, 0, 0, 0])
    plain = attributes.get("auto_pad", "NOTSET") == "NOTSET" and "output_shape" not in attributes
    if weight.ndim != 4 or not plain or pads[:2] != pads[2:]:
        raise UnboundedModuleError(
            "a transposed convolution is known along two axes, padded alike on both sides"
        )
    return transposed_convolution(
        value,
        weight,
        bias,
        stride=on.pair_of(attributes.get("strides", [1, 1])),
        padding=on.pair_of(pads[:2]),
        output_padding=on.pair_of(attributes.get("output_padding", [0, 0])),
        groups=attributes.get("group", 1),
        dilation=on.pair_of(attributes.get("dilations", [1, 1])),
    )


def _cast(attributes: Attributes, value: Value) -> Value:
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    if attributes["to"] not in floats:
        raise UnboundedModuleError("rounding to whole numbers jumps")
    return value


OPERATORS: dict[str, Operator] = {
    **SHAPES,
    **{
        known.onnx[0]: _module(kind, **known.onnx[1])
        for kind, known in ACTIVATIONS.items()
        if known.onnx is not None
    },
    "Gemm": _gemm,
    "MatMul": lambda _, a, b: on.matmul(a, b),
    "Conv": onnx_windows.conv,
    "ConvTranspose": _conv_transpose,
    "BatchNormalization": _batch_norm,
    "MaxPool": onnx_windows.max_pool,
    "AveragePool": onnx_windows.average_pool,
    "Add": lambda _, a, b: on.add(a, b),
    "Sub": lambda _, a, b: on.subtract(a, b),
    "Mul": lambda _, a, b: on.multiply(a, b),
    "Div": lambda _, a, b: on.divide(a, b),
    "Neg": lambda _, x: on.multiply(x, -1.0),
    "Sum": lambda _, *parts: on.total(parts),
    "PRelu": _prelu,
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "Clip": _clip,
    "Erf": lambda _, x: products.erf(x),
    "Greater": lambda _, a, b: products.Comparison.of(a, b, True),
    "Less": lambda _, a, b: products.Comparison.of(a, b, False),
    "Where": lambda _, *parts: products.chosen(*parts),
    "ReduceL2": _lengths,
    "TopK": _top_k,
    "Max": lambda _, a, b: sorting.maximum(a, b),
    "Min": lambda _, a, b: sorting.minimum(a, b),
    "Identity": lambda _, x: x,
    "Dropout": _dropout,
    "Cast": _cast,
}
"""Rules of the operators of the format, by name."""
