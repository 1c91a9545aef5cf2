"""Small ONNX files, written node by node."""

from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def save(
    path: Path, nodes: list, shape: tuple, constants: dict[str, np.ndarray], **options
) -> Path:
    """A file whose input is x, of doubles, and whose output is y."""
    x = helper.make_tensor_value_info("x", TensorProto.DOUBLE, shape)
    y = helper.make_empty_tensor_value_info("y")
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, options.pop("outputs", None))
    graph = helper.make_graph(nodes, "net", [x], [y], stored)
    imports = [helper.make_opsetid("", options.pop("version", 20))]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9, **options), path)
    return path


def single(path: Path, kind: str, shape: tuple, constants: dict, **attributes) -> Path:
    version = attributes.pop("version", 20)
    node = helper.make_node(kind, ["x", *constants], ["y"], name="the_node", **attributes)
    stored = {name: value for name, value in constants.items() if name}
    return save(path, [node], (1, *shape), stored, version=version)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def constant(name: str, value: np.ndarray) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
