"""Small ONNX files, written node by node."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor


def save(
    path: Path, nodes: list, shape: tuple, constants: dict[str, np.ndarray], **options
) -> Path:
    """A file whose input is x, of doubles by default, and whose output is y."""
    kind = options.pop("kind", TensorProto.DOUBLE)
    x = helper.make_tensor_value_info("x", kind, shape)
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    y = helper.make_tensor_value_info("y", kind, options.pop("outputs", None))
    graph = helper.make_graph(nodes, "net", [x], [y], stored)
    imports = [helper.make_opsetid("", options.pop("version", 20))]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9, **options), path)
    return path


def single(path: Path, kind: str, shape: tuple, constants: dict, **attributes) -> Path:
    """A file of one operator, for a batch of one."""
    return whole(path, kind, (1, *shape), constants, **attributes)


def whole(path: Path, kind: str, shape: tuple, constants: dict, **attributes) -> Path:
    """A file of one operator, whose input has all these axes."""
    options = {name: attributes.pop(name) for name in ("version", "single") if name in attributes}
    inputs = ["x", *constants]
    if any(name == "x" for name in constants):  # x stands where it is named
        inputs = list(constants)
    node = helper.make_node(kind, [n.strip() for n in inputs], ["y"], name="the_node", **attributes)
    stored = {name: value for name, value in constants.items() if value is not None}
    if options.pop("single", False):
        stored = {name: in_single(value) for name, value in stored.items()}
        options["kind"] = TensorProto.FLOAT
    return save(path, [node], shape, stored, **options)


def in_single(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float32) if value.dtype == np.float64 else value


def run(path: Path, x: Tensor) -> Tensor:
    """Onnxruntime, one input at a time: rows of x as the file's whole tensor."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: row.numpy()})[0] for row in x]
    return torch.from_numpy(np.stack(rows))


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def numbers(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def constant(name: str, value: np.ndarray) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
