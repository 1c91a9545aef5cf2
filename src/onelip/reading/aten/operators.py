"""Torch's operators on values, by name; each is given all arguments of its schema in order."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelip.activations import ACTIVATIONS
from onelip.chains import linear_layers as linear
from onelip.chains.linear_layers import flattened, transposed_convolution
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.reading.aten import along_axes
from onelip.reading.graphs import activation_products as products
from onelip.reading.graphs import arithmetic, pooling, shapes, sorting
from onelip.reading.graphs import operations as on
from onelip.reading.graphs.frame import Frame
from onelip.reading.graphs.pooling import Windows
from onelip.reading.graphs.refusals import settled

Operation = Callable[..., Any]


def _module(kind: type[nn.Module]) -> Operation:
    """A module whose arguments are those of the operator."""
    return lambda value, *settings: on.layer(kind(*settings), value)


def _elu(value: Value, alpha: float, scale: float, input_scale: float) -> Value:
    """``input_scale`` acts below 0 only, as in CELU."""
    if input_scale != 1 and alpha * input_scale != 1:
        raise UnboundedModuleError(f"ELU with input_scale={input_scale} is not known")
    result = on.layer(nn.ELU(alpha) if input_scale == 1 else nn.CELU(alpha), value)
    return result if scale == 1 else on.multiply(result, scale)


def _convolution(
    value: Value, weight: Tensor, bias: Tensor | None, stride: Any, *rest: Any
) -> Value:
    padding, dilation, transposed, more, groups = rest
    if transposed:
        return _conv_transpose(value, weight, bias, stride, padding, more, groups, dilation)
    return _conv(value, weight, bias, stride, padding, dilation, groups)


def _conv(value: Value, weight: Tensor, bias: Tensor | None, *settings: Any) -> Value:
    stride, padding, dilation, groups = settings
    return on.convolve(
        value, weight, bias, stride=stride, sides=padding, dilation=dilation, groups=groups
    )


def _conv_transpose(value: Value, weight: Tensor, bias: Tensor | None, *settings: Any) -> Value:
    stride, padding, more, groups, dilation = settings
    if weight.ndim != 4:
        raise UnboundedModuleError("a transposed convolution is known along two axes only")
    return transposed_convolution(
        value,
        weight,
        bias,
        stride=on.pair_of(stride),
        padding=on.pair_of(padding),
        output_padding=on.pair_of(more),
        groups=groups,
        dilation=on.pair_of(dilation),
    )


def _max_pool(value: Value, kernel: Any, stride: Any, *settings: Any) -> Value:
    padding, dilation, ceil = settings
    sizes = (on.pair_of(kernel), on.pair_of(stride or kernel))
    module = nn.MaxPool2d(
        *sizes, padding=on.pair_of(padding), dilation=on.pair_of(dilation), ceil_mode=ceil
    )
    return on.layer(module, value)


def _average_pool(value: Value, kernel: Any, stride: Any, *settings: Any) -> Value:
    padding, ceil, with_padding, divisor = settings
    sizes = (on.pair_of(kernel), on.pair_of(stride or kernel))
    module = nn.AvgPool2d(*sizes, on.pair_of(padding), ceil, with_padding, divisor)
    return on.layer(module, value)


def _windows(kernel: Any, stride: Any, padding: Any, *, dilation: Any, ceil: bool) -> Windows:
    """Windows from the arguments of a pooling along one axis or three."""
    axes = len(kernel)
    around, apart = (list(part) * (axes if len(part) == 1 else 1) for part in (padding, dilation))
    sides = tuple((side, side) for side in around)
    return Windows(tuple(kernel), tuple(stride or kernel), tuple(apart), sides, ceil)


def _maxima(value: Value, kernel: Any, stride: Any, padding: Any, *rest: Any) -> Value:
    dilation, ceil = rest
    windows = _windows(kernel, stride, padding, dilation=dilation, ceil=ceil)
    return pooling.maxima(value, windows)


def _averages(value: Value, kernel: Any, stride: Any, padding: Any, *rest: Any) -> Value:
    ceil, counted, *divisor = rest
    windows = _windows(kernel, stride, padding, dilation=[1], ceil=ceil)
    return pooling.averages(value, windows, counted=counted, divisor=next(iter(divisor), None))


def _dropout(value: Value, _: float, train: bool) -> Value:
    if train:
        raise UnboundedModuleError("dropout is random in training: model.eval() before the export")
    return value


def _rrelu(value: Value, low: float, high: float, train: bool, _: Any = None) -> Value:
    """The mean slope in eval mode."""
    if train:
        raise UnboundedModuleError("RReLU is random in training: model.eval() before the export")
    return on.layer(nn.LeakyReLU((low + high) / 2), value)


def _cast(value: Value, dtype: torch.dtype | None) -> Value:
    if dtype is not None and not dtype.is_floating_point:
        raise UnboundedModuleError(f"rounding to {dtype} jumps")
    return value


def _slice(value: Value, axis: int, start: int | None, end: int | None, step: int) -> Value:
    if axis % (len(value.shape) + 1) == 0 and not start and (end is None or end >= 1):
        return value
    return shapes.part_of(value, axis, slice(start, end, step))


def _size(value: Value, axis: int) -> int:
    return (1, *value.shape)[axis]


def _transposed(value: Value, first: int, second: int) -> Value:
    axes = list(range(len(value.shape) + 1))
    axes[first], axes[second] = axes[second], axes[first]
    return shapes.permute(value, axes)


def _addmm(bias: Any, value: Any, weight: Any, beta: float, alpha: float) -> Value:
    return on.add(on.times(on.matmul(value, weight), alpha), on.times(bias, beta))


def _broadcast(operation: Operation) -> Operation:
    """An operation on operands of one shape; constants are broadcast where they are used."""

    def operator(first: Any, second: Any) -> Any:
        both = isinstance(first, Value) and isinstance(second, Value)
        if both and first.shape != second.shape:
            first, second = Frame(1).broadcast([first, second])
        return operation(first, second)

    return operator


_add, _multiply = _broadcast(arithmetic.add), _broadcast(arithmetic.multiply)
_divide = _broadcast(arithmetic.divide)


def _subtract(first: Any, second: Any) -> Any:
    """The difference; of a value and its means, before these are broadcast."""
    found = arithmetic.deviation(first, second)
    return _broadcast(arithmetic.subtract)(first, second) if found is None else found


def _times(operand: Any, number: float) -> Any:
    return operand if number == 1 else on.times(settled(operand), number)


TAKES_UNFINISHED = {
    *("add", "sub", "rsub", "mul", "div", "pow", "square", "sqrt", "rsqrt", "reciprocal"),
    *(
        "sum",
        "mean",
        "where",
        "clamp",
        "clamp_min",
        "maximum",
        "expand",
        "expand_as",
        "log",
        "tanh",
    ),
    *("clone", "contiguous", "alias", "detach", "to", "_to_copy"),
}
"""Operators that make something of squares, roots and comparisons."""

OPERATORS: dict[str, Operation] = {
    **{
        f"{known.aten}.default": _module(kind)
        for kind, known in ACTIVATIONS.items()
        if known.aten is not None
    },
    "linear.default": on.affine,
    "addmm.default": _addmm,
    "mm.default": on.matmul,
    "matmul.default": on.matmul,
    "conv1d.default": _conv,
    "conv1d.padding": _conv,
    "conv2d.default": _conv,
    "conv2d.padding": _conv,
    "conv3d.default": _conv,
    "conv3d.padding": _conv,
    "convolution.default": _convolution,
    "conv_transpose2d.input": _conv_transpose,
    "batch_norm.default": along_axes.batch_norm,
    "_native_batch_norm_legit_no_training.default": lambda x, w, b, m, v, momentum, eps: [
        along_axes.batch_norm(x, w, b, m, v, False, momentum, eps, False)
    ],
    "max_pool2d.default": _max_pool,
    "max_pool2d_with_indices.default": lambda *arguments: [_max_pool(*arguments)],
    "avg_pool2d.default": _average_pool,
    "max_pool1d.default": _maxima,
    "max_pool3d.default": _maxima,
    "max_pool3d_with_indices.default": lambda *arguments: [_maxima(*arguments)],
    "avg_pool1d.default": _averages,
    "avg_pool3d.default": _averages,
    "adaptive_avg_pool1d.default": linear.adaptive_averages,
    "adaptive_avg_pool2d.default": _module(nn.AdaptiveAvgPool2d),
    "_adaptive_avg_pool2d.default": _module(nn.AdaptiveAvgPool2d),
    "adaptive_avg_pool3d.default": linear.adaptive_averages,
    "adaptive_max_pool1d.default": lambda *arguments: [pooling.adaptive_maxima(*arguments)],
    "adaptive_max_pool2d.default": lambda *arguments: [pooling.adaptive_maxima(*arguments)],
    "adaptive_max_pool3d.default": lambda *arguments: [pooling.adaptive_maxima(*arguments)],
    "im2col.default": lambda x, *sizes: linear.moved(x, lambda t: F.unfold(t, *sizes)),
    "mean.dim": along_axes.mean,
    "sum.dim_IntList": along_axes.total,
    "amax.default": along_axes.extremes(largest=True),
    "amin.default": along_axes.extremes(largest=False),
    "max.dim": along_axes.extremes_with_places(largest=True),
    "min.dim": along_axes.extremes_with_places(largest=False),
    "logsumexp.default": along_axes.log_sum_exp,
    "softmax.int": along_axes.softmax,
    "_softmax.default": along_axes.softmax,
    "log_softmax.int": along_axes.log_softmax,
    "_log_softmax.default": along_axes.log_softmax,
    "cumsum.default": along_axes.cumulative,
    "layer_norm.default": along_axes.layer_norm,
    "native_layer_norm.default": lambda *arguments: [along_axes.layer_norm(*arguments)],
    "group_norm.default": along_axes.group_norm,
    "instance_norm.default": along_axes.instance_norm,
    "upsample_nearest1d.vec": along_axes.resized("nearest"),
    "upsample_nearest2d.vec": along_axes.resized("nearest"),
    "_upsample_nearest_exact2d.vec": along_axes.resized("nearest-exact"),
    "upsample_linear1d.vec": along_axes.resized("linear"),
    "upsample_bilinear2d.vec": along_axes.resized("linear"),
    "expand.default": along_axes.expanded,
    "expand_as.default": lambda x, other: along_axes.expanded(x, (1, *settled(other).shape)),
    "var.correction": along_axes.variance,
    "var.dim": along_axes.variance,  # an unbiased one is corrected by 1
    "std.correction": along_axes.deviation,
    "std.dim": along_axes.deviation,
    "var_mean.correction": along_axes.variance_and_mean,
    "repeat.default": along_axes.moving(Tensor.repeat),
    "tile.default": along_axes.moving(Tensor.tile),
    "roll.default": along_axes.moving(Tensor.roll),
    "mT.default": lambda x: _transposed(x, -1, -2),
    "movedim.int": along_axes.moving(Tensor.movedim),
    "index_select.default": along_axes.moving(Tensor.index_select),
    "narrow.default": along_axes.moving(Tensor.narrow),
    "prelu.default": on.prelu,
    "elu.default": _elu,
    "erf.default": products.erf,
    "where.self": products.chosen,
    "gt.Scalar": lambda a, b: products.Comparison.of(a, b, True),
    "gt.Tensor": lambda a, b: products.Comparison.of(a, b, True),
    "lt.Scalar": lambda a, b: products.Comparison.of(a, b, False),
    "lt.Tensor": lambda a, b: products.Comparison.of(a, b, False),
    "rrelu.default": _rrelu,
    "dropout.default": _dropout,
    "clone.default": lambda x, _: x,
    "contiguous.default": lambda x, _: x,
    "alias.default": lambda x: x,
    "detach.default": lambda x: x,
    "to.dtype": lambda x, dtype, *_: _cast(x, dtype),
    "_to_copy.default": lambda x, dtype, *_: _cast(x, dtype),
    "add.Tensor": lambda a, b, alpha: _add(a, _times(b, alpha)),
    "add.Scalar": lambda a, b, alpha: _add(a, _times(b, alpha)),
    "sub.Tensor": lambda a, b, alpha: _subtract(a, _times(b, alpha)),
    "sub.Scalar": lambda a, b, alpha: _subtract(a, _times(b, alpha)),
    "rsub.Scalar": lambda a, b, alpha: _subtract(b, _times(a, alpha)),
    "rsub.Tensor": lambda a, b, alpha: _subtract(b, _times(a, alpha)),
    "mul.Tensor": _multiply,
    "mul.Scalar": _multiply,
    "div.Tensor": _divide,
    "div.Scalar": _divide,
    "pow.Tensor_Scalar": arithmetic.power,
    "square.default": lambda x: arithmetic.power(x, 2),
    "sqrt.default": arithmetic.sqrt,
    "rsqrt.default": lambda x: arithmetic.reciprocal(arithmetic.sqrt(x)),
    "reciprocal.default": arithmetic.reciprocal,
    "tanh.default": arithmetic.tanh,
    "log.default": arithmetic.log,
    "neg.default": lambda x: on.multiply(x, -1.0),
    "view.default": shapes.reshape,
    "_unsafe_view.default": shapes.reshape,
    "reshape.default": shapes.reshape,
    "flatten.using_ints": flattened,
    "permute.default": shapes.permute,
    "transpose.int": _transposed,
    "squeeze.dim": lambda x, axis: shapes.squeeze(x, [axis]),
    "squeeze.dims": shapes.squeeze,
    "unsqueeze.default": shapes.unsqueeze,
    "pad.default": lambda x, pads, mode, number: shapes.pad(x, pads, mode, number or 0.0),
    "constant_pad_nd.default": lambda x, pads, number: shapes.pad(x, pads, "constant", number),
    "pixel_shuffle.default": _module(nn.PixelShuffle),
    "pixel_unshuffle.default": _module(nn.PixelUnshuffle),
    "channel_shuffle.default": _module(nn.ChannelShuffle),
    "cat.default": shapes.concatenate,
    "stack.default": shapes.stacked,
    "flip.default": shapes.flipped,
    "chunk.default": lambda x, count, axis: shapes.parts(x, lambda t: t.chunk(count, axis), axis),
    "split.Tensor": lambda x, size, axis: shapes.parts(x, lambda t: t.split(size, axis), axis),
    "split_with_sizes.default": lambda x, n, axis: shapes.parts(
        x, lambda t: t.split(n, axis), axis
    ),
    "unbind.int": lambda x, axis: [shapes.part_of(x, axis, i) for i in range(_size(x, axis))],
    "unflatten.int": lambda x, axis, sizes: shapes.reshape(x, shapes.unflattened(x, axis, sizes)),
    "maximum.default": arithmetic.larger,
    "minimum.default": sorting.minimum,
    "sort.default": sorting.ascending,
    "topk.default": sorting.largest_first,
    "clamp.default": arithmetic.clamp,
    "clamp.Tensor": arithmetic.clamp,
    "clamp_min.default": arithmetic.clamp,
    "clamp_max.default": lambda x, high: arithmetic.clamp(x, high=high),
    "linalg_vector_norm.default": along_axes.length,
    "norm.ScalarOpt_dim": along_axes.length,
    "slice.Tensor": _slice,
    "select.int": shapes.part_of,
    "sym_size.int": _size,
}
"""Rules of the operators of ``torch.ops.aten``, by name and overload."""
