"""ONNX files of networks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onelip.chains import Chain, Shape
from onelip.errors import UsageError, missing_extra
from onelip.reading.graphs.graph import Graph, Node, Reference
from onelip.reading.onnx.operators import OPERATORS

_OWN = ("", "ai.onnx")


def read_onnx(path: str | Path) -> Chain:
    """The network of an ONNX file as a chain.

    Sequences, and residual blocks ``x + f(x)``; see ``read_program``. Of an f with several hidden
    layers, the layers in the middle are one nonlinearity with the product of their bounds.

    Cost: next to none; the norms of residual branches with several hidden layers.

    Args:
        path: of a network with one input, whose first axis is the batch: 1 or dynamic.

    Raises:
        UnboundedModuleError: nothing is proved for an operator; the message names the node.
        UsageError: the file is missing or cannot be read, or the network does not take one input
            and return one output for it; or onnx is not installed.
    """
    graph, opset = _loaded(Path(path))
    constants = {part.name: _tensor(part) for part in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UsageError(
            f"{path}: a network of one input and one output can be read, this one has "
            f"{len(inputs)} and {len(graph.output)}"
        )
    shape, like = _shape(inputs[0])
    nodes = [_node(node, opset) for node in graph.node]
    known = {**constants, "": None}
    return Graph(nodes, known, inputs[0].name, shape, like, graph.output[0].name).chain()


def _loaded(path: Path) -> tuple[Any, int]:
    """The graph and the version of its operators."""
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx") from error
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    try:
        model = onnx.load(path)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{path} cannot be read as an ONNX file: {reason}") from error
    versions = [entry.version for entry in model.opset_import if entry.domain in _OWN]
    if not versions:
        raise UsageError(f"{path} cannot be read as an ONNX file: it names no operators")
    return model.graph, versions[0]


def _tensor(proto: Any) -> Tensor:
    """A constant; what torch has no dtype for, such as bfloat16 here, fits into float32."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(proto)
    try:
        return torch.from_numpy(array.copy())
    except TypeError:
        return torch.from_numpy(array.astype("float32"))


def _shape(entry: Any) -> tuple[Shape, Tensor]:
    """Shape of the input without the batch, and a tensor of its type."""
    from onnx import TensorProto

    kind = entry.type.tensor_type
    sides = [side.dim_value if side.HasField("dim_value") else 0 for side in kind.shape.dim]
    if len(sides) < 2 or min(sides[1:]) < 1:
        raise UsageError(f"input {entry.name!r}: only the batch may be dynamic, got {sides}")
    if sides[0] > 1:
        raise UsageError(
            f"input {entry.name!r}: a batch of {sides[0]}; export for one of 1, or dynamic"
        )
    dtypes = {TensorProto.FLOAT: torch.float32, TensorProto.DOUBLE: torch.float64}
    if kind.elem_type not in dtypes:
        raise UsageError(f"input {entry.name!r} must hold numbers of 32 or 64 bits")
    return tuple(sides[1:]), torch.empty((), dtype=dtypes[kind.elem_type])


def _node(proto: Any, opset: int) -> Node:
    options = {part.name: _attribute(part) for part in proto.attribute}
    operator = OPERATORS.get(proto.op_type) if proto.domain in _OWN else None
    inputs = tuple(Reference(name) for name in proto.input)
    name = proto.name or next(iter(proto.output), "")
    operation = None if operator is None else _called(operator, options)
    return Node(
        name, proto.op_type, inputs, tuple(proto.output), operation, _computed(proto, opset)
    )


def _attribute(part: Any) -> Any:
    from onnx import AttributeProto, helper

    value = helper.get_attribute_value(part)
    if part.type == AttributeProto.TENSOR:
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def _called(operator: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    return lambda *inputs: operator(dict(options), *inputs)


def _computed(proto: Any, opset: int) -> Callable[..., Any]:
    """The operator on constants, as the package of the format defines it."""

    def compute(*inputs: Any) -> Any:
        import numpy as np
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        names = [name for name in proto.input if name]
        given = [part.detach().numpy() for part in inputs if part is not None]
        entries = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(part.dtype), part.shape
            )
            for name, part in zip(names, given, strict=True)
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in proto.output]
        graph = helper.make_graph([proto], "constant", entries, outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        results = ReferenceEvaluator(model).run(None, dict(zip(names, given, strict=True)))
        tensors = [torch.tensor(np.array(result, order="C")) for result in results]
        return tensors if len(proto.output) > 1 else tensors[0]

    return compute
