"""The nodes of ONNX graphs, with their rules on values and their definition on constants."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.reading.graphs.frame import BatchError, Frame
from onelip.reading.graphs.graph import Node, Reference, walked
from onelip.reading.graphs.refusals import Unfinished
from onelip.reading.onnx.attributes import Attributes
from onelip.reading.onnx.operators import OPERATORS, REASONS, TAKES_UNFINISHED
from onelip.reading.onnx.shapes import SHAPES

OWN = ("", "ai.onnx")
"""Names of the domain of the format's own operators."""


def constants_of(graph: Any) -> dict[str, Tensor]:
    """The constants that a graph stores, by name."""
    constants = {part.name: _tensor(part) for part in graph.initializer}
    for part in graph.sparse_initializer:
        values, places = _tensor(part.values), _tensor(part.indices).long()
        dense = torch.zeros(list(part.dims), dtype=values.dtype)
        if places.ndim == 1:
            dense.view(-1)[places] = values
        else:
            dense[tuple(places.T)] = values
        constants[part.values.name] = dense
    return constants


def _tensor(proto: Any) -> Tensor:
    """A constant; what torch has no dtype for, such as bfloat16 here, fits into float32."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(proto)
    try:
        return torch.from_numpy(array.copy())
    except TypeError:
        return torch.from_numpy(array.astype("float32"))


def nodes_of(graph: Any, version: int, frame: Frame, dtype: torch.dtype) -> list[Node]:
    """The operations of a graph, in the order of their computation.

    Args:
        graph: as the package of the format has it.
        version: of the operators.
        frame: the axes of values.
        dtype: of the network's numbers.
    """
    return [_node(node, version, frame, dtype) for node in graph.node]


def _node(proto: Any, version: int, frame: Frame, dtype: torch.dtype) -> Node:
    name = proto.name or next(iter(proto.output), "")
    inputs = [Reference(part) for part in proto.input]
    if proto.op_type == "If" and proto.domain in OWN:
        captured = sorted({n for part in proto.attribute for n in _captured(part.g)})
        branches = {part.name: part.g for part in proto.attribute}
        choose = _chosen_branch(branches, captured, version, frame, dtype)
        inputs += [Reference(part) for part in captured]
        return Node(name, "If", tuple(inputs), tuple(proto.output), choose, choose)
    operator = OPERATORS.get(proto.op_type) if proto.domain in OWN else None
    compute = _computed(proto, version)
    operation = _refused(proto)
    if operator is not None:
        operation = _called(operator, proto, compute, version=version, frame=frame, dtype=dtype)
    return Node(name, proto.op_type, tuple(inputs), tuple(proto.output), operation, compute)


def _refused(proto: Any) -> Callable[..., Any]:
    """What is said of an operator without a rule."""
    reason = REASONS.get(proto.op_type, "no Lipschitz bound is known: there is no rule for it")
    if proto.domain not in OWN:
        reason = f"no Lipschitz bound is known of operators of {proto.domain!r}"

    def refuse(*_: Any) -> Any:
        raise UnboundedModuleError(
            f"{proto.op_type} {reason}" if proto.op_type in REASONS else reason
        )

    return refuse


def _captured(graph: Any) -> set[str]:
    """Names that a graph inside takes from around it."""
    made = {part.name for part in (*graph.initializer, *graph.input)}
    made |= {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in node.input if name}
    used |= {entry.name for entry in graph.output}
    for node in graph.node:
        for part in node.attribute:
            used |= _captured(part.g) if part.HasField("g") else set()
    return used - made


def _chosen_branch(
    branches: Mapping[str, Any],
    captured: Sequence[str],
    version: int,
    frame: Frame,
    dtype: torch.dtype,
) -> Callable[..., Any]:
    """The results of the branch that a constant chooses."""

    def choose(condition: Any, *values: Any) -> Any:
        if not isinstance(condition, Tensor):
            raise UnboundedModuleError("a branch that depends on the input jumps: no constant")
        graph = branches["then_branch" if bool(condition) else "else_branch"]
        known = {**dict(zip(captured, values, strict=True)), **constants_of(graph), "": None}
        results = walked(nodes_of(graph, version, frame, dtype), known)
        found = [results[entry.name] for entry in graph.output]
        return found if len(found) > 1 else found[0]

    return choose


def _attribute(part: Any) -> Any:
    from onnx import AttributeProto, helper

    value = helper.get_attribute_value(part)
    if part.type == AttributeProto.TENSOR:
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def _called(
    operator: Callable[..., Any],
    proto: Any,
    compute: Callable[..., Any],
    *,
    version: int,
    frame: Frame,
    dtype: torch.dtype,
) -> Callable[..., Any]:
    """The operator, given its attributes and then its inputs, in the network's dtype."""

    def prepared(part: Any) -> Any:
        if isinstance(part, Unfinished) and proto.op_type not in TAKES_UNFINISHED:
            return part.settled()
        if not isinstance(part, Tensor) or not part.is_floating_point():
            return part
        converted = part.to(dtype)
        fits = torch.equal(converted.double(), part.double())
        return converted if fits else part

    def call(*inputs: Any) -> Any:
        given = {part.name: _attribute(part) for part in proto.attribute}
        attributes = Attributes(proto.op_type, given, frame, version, compute)
        parts = [prepared(part) for part in inputs]
        if proto.op_type in SHAPES:
            result = operator(attributes, *parts)
        else:
            result = _with_an_axis(operator, attributes, parts)
        results = result if isinstance(result, list) else [result]
        if frame.batch is not None and any(isinstance(r, Value) and not r.shape for r in results):
            raise BatchError("leaves each input of the batch a single number")
        return results[0] if len(proto.output) == 1 else result

    return call


def _with_an_axis(
    operator: Callable[..., Any], attributes: Attributes, parts: Sequence[Any]
) -> Any:
    """An operator that moves no axes, on vectors of one number instead of single numbers."""
    alone = not any(len(part.shape) for part in parts if isinstance(part, (Value, Tensor)))
    single = [isinstance(part, Value) and not part.shape for part in parts]
    pairs = zip(parts, single, strict=True)
    result = operator(
        attributes, *(linear.reshaped(part, (1,)) if is_one else part for part, is_one in pairs)
    )
    if alone and isinstance(result, Value) and result.shape == (1,):
        return linear.reshaped(result, ())
    return result


def _computed(proto: Any, opset: int) -> Callable[..., Any]:
    """The operator on constants, as the package of the format defines it."""

    def compute(*inputs: Any) -> Any:
        import numpy as np
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        names = [name for name in proto.input if name]
        given = [part.detach().numpy() for part in inputs if part is not None]
        entries = {
            name: helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(part.dtype), part.shape
            )
            for name, part in zip(names, given, strict=True)
        }
        outputs = [helper.make_empty_tensor_value_info(name) for name in proto.output if name]
        graph = helper.make_graph([proto], "constant", list(entries.values()), outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        results = iter(ReferenceEvaluator(model).run(None, dict(zip(names, given, strict=True))))
        tensors = [
            torch.tensor(np.array(next(results), order="C")) if name else None
            for name in proto.output
        ]
        return tensors if len(proto.output) > 1 else tensors[0]

    return compute
