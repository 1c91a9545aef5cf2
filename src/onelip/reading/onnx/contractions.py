"""ONNX's ``Einsum`` of a value and a constant, or of a value alone."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.graphs.refusals import unbounded_product
from onelip.reading.onnx.attributes import Attributes

Times = Callable[[Attributes, Value, Tensor], Value]


def einsum(times: Times) -> Callable[..., Value]:
    """The operator, written as a product with matrices.

    Args:
        times: a value times constant matrices, along the last two axes of both.
    """

    def operator(attributes: Attributes, *parts: Any) -> Value:
        inputs, result = _indices(str(attributes.get("equation", "")))
        if len(inputs) != len(parts):
            raise UsageError(f"{len(parts)} operands of an equation of {len(inputs)}")
        if len(parts) == 1:
            one = parts[0].point.like.new_ones(())
            return _contracted(attributes, times, parts[0], one, (inputs[0], "", result))
        if len(parts) != 2:
            raise UnboundedModuleError("Einsum is known of one or two operands")
        if all(isinstance(part, Value) for part in parts):
            raise unbounded_product("a contraction of two values")
        if isinstance(parts[1], Value):
            parts, inputs = parts[::-1], inputs[::-1]
        names = (inputs[0], inputs[1], result)
        return _contracted(attributes, times, parts[0], parts[1], names)

    return operator


def _indices(equation: str) -> tuple[list[str], str]:
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    inputs = left.split(",")
    if "." in text or any(len(set(part)) < len(part) for part in (*inputs, right)):
        raise UnboundedModuleError(f"Einsum {equation!r}: each index once in each operand")
    if not arrow:
        right = "".join(sorted(i for i in set(left) - {","} if left.count(i) == 1))
    return inputs, right


def _contracted(
    attributes: Attributes, times: Times, value: Value, matrix: Tensor, names: tuple[str, str, str]
) -> Value:
    own, other, result = names
    frame = attributes.frame
    sizes = dict(zip(own, frame.shape(value), strict=True))
    sizes |= dict(zip(other, matrix.shape, strict=True))
    if not set(result) <= set(sizes):
        raise UsageError("the result has an index that no operand has")
    alone = [i for i in other if i not in own and i not in result]
    matrix = matrix.sum([other.index(i) for i in alone]) if alone else matrix
    other = "".join(i for i in other if i not in alone)
    heads = [i for i in result if i in own and i in other]
    kept = [i for i in result if i in own and i not in other]
    summed = [i for i in own if i not in result]
    new = [i for i in result if i not in own]
    # Indices that the constant lacks are summed: it is the same along them.
    spread = matrix.permute([other.index(i) for i in other if i in heads]
                            + [other.index(i) for i in other if i in summed]
                            + [other.index(i) for i in new])  # fmt: skip
    order = [i for i in other if i in heads], [i for i in other if i in summed]
    for place, i in enumerate(summed):
        if i not in order[1]:
            at = len(order[0]) + place
            spread = spread.unsqueeze(at)
            order[1].insert(place, i)
    shape = [[sizes[i] for i in part] for part in (order[0], order[1], new)]
    spread = spread.expand(*(n for part in shape for n in part))
    spread = spread.reshape(*shape[0], math.prod(shape[1]), math.prod(shape[2]))
    axes = [own.index(i) for i in (*order[0], *kept, *order[1])]
    rows = math.prod(sizes[i] for i in kept)
    width = math.prod(shape[1])
    turned = frame.moved(value, lambda x: x.permute(axes).reshape(*shape[0], rows, width))
    product = times(attributes, turned, spread)
    names_now = [*order[0], *kept, *new]
    back = [names_now.index(i) for i in result]
    whole = [sizes[i] for i in names_now]
    final: Value = frame.moved(product, lambda x: x.reshape(whole).permute(back))
    return final
