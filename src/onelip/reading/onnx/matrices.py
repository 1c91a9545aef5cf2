"""ONNX's products of matrices, one of them constant or both bounded; see ``operators``."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from onelip.chains import Along
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.reading.graphs import operations as on
from onelip.reading.graphs.bounded_products import bounded_product
from onelip.reading.graphs.refusals import unbounded_product
from onelip.reading.onnx import arithmetic
from onelip.reading.onnx.attributes import Attributes


def matmul(attributes: Attributes, first: Any, second: Any) -> Value:
    """Matrices along the last two axes, one of them constant."""
    if isinstance(first, Value) and isinstance(second, Value):
        return _bounded_matrices(attributes, first, second)
    if isinstance(first, Value):
        return times_matrix(attributes, first, second)
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


def times_matrix(attributes: Attributes, value: Value, matrix: Tensor) -> Value:
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
            return times_matrix(attributes, value, matrix)
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
    product = times_matrix(attributes, turned, matrix.transpose(-1, -2))
    back: Value = frame.moved(product, lambda x: x.transpose(-1, -2))
    return back


def gemm(attributes: Attributes, first: Any, second: Any, bias: Any = None) -> Value:
    """``alpha A B + beta C``, A and B transposed or not."""

    def turned(part: Any) -> Any:
        if isinstance(part, Value):
            return attributes.frame.moved(part, lambda x: x.T)
        return part.T

    first = turned(first) if attributes.get("transA", 0) else first
    second = turned(second) if attributes.get("transB", 0) else second
    product: Value = on.times(matmul(attributes, first, second), attributes.get("alpha", 1.0))
    if bias is None:
        return product
    added = on.times(bias, attributes.get("beta", 1.0))
    total: Value = arithmetic.binary(on.add)(attributes, product, added)
    return total
