"""ONNX operator by operator, against the reference evaluator of ONNX."""

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from onnx import TensorProto, helper

from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading import read_onnx
from tests.reading.checks import check
from tests.reading.onnx.files import constant, draw, save, single, whole

IMAGE = (2, 5, 6)
POOL = {"kernel_shape": [2, 3]}
OPERATORS: list[tuple[str, tuple, dict, dict]] = [
    ("Gemm", (4,), {"w": draw(4, 3)}, {}),
    ("Gemm", (4,), {"w": draw(3, 4), "b": draw(1, 3)}, {"transB": 1, "alpha": 0.5, "beta": 3.0}),
    ("Gemm", (4,), {"w": draw(4, 3), "b": draw(1)}, {}),
    ("MatMul", (4,), {"w": draw(4, 3)}, {}),
    ("MatMul", (2, 4), {"w": draw(4, 3)}, {}),
    ("Conv", IMAGE, {"w": draw(3, 2, 3, 2), "b": draw(3)}, {"pads": [1, 0, 2, 1]}),
    ("Conv", IMAGE, {"w": draw(3, 2, 3, 2)}, {"strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", IMAGE, {"w": draw(4, 1, 2, 4)}, {"auto_pad": "SAME_UPPER", "group": 2}),
    ("Conv", IMAGE, {"w": draw(3, 2, 2, 4)}, {"auto_pad": "SAME_LOWER"}),
    ("Conv", IMAGE, {"w": draw(3, 2, 3, 3)}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", IMAGE, {"w": draw(3, 2, 3, 3)}, {"auto_pad": "VALID"}),
    ("Conv", (2, 7), {"w": draw(3, 2, 3)}, {"pads": [2, 0], "strides": [2]}),
    ("MaxPool", IMAGE, {}, POOL),
    ("MaxPool", IMAGE, {}, {**POOL, "strides": [2, 1], "pads": [1, 0, 0, 2]}),
    ("MaxPool", IMAGE, {}, {**POOL, "auto_pad": "SAME_UPPER"}),
    ("AveragePool", IMAGE, {}, {**POOL, "strides": [2, 2]}),
    ("AveragePool", IMAGE, {}, {**POOL, "pads": [1, 0, 0, 2], "count_include_pad": 1}),
    ("GlobalAveragePool", IMAGE, {}, {}),
    ("GlobalAveragePool", (3, 4), {}, {}),
    ("ReduceMean", IMAGE, {"axes": whole(-1, 2)}, {"keepdims": 0}),
    ("ReduceMean", IMAGE, {}, {"axes": [2, 3], "version": 13}),
    ("Relu", (3,), {}, {}),
    ("LeakyRelu", (3,), {}, {}),
    ("LeakyRelu", (3,), {}, {"alpha": -1.5}),
    ("PRelu", (3, 2), {"slope": draw(3, 1)}, {}),
    ("PRelu", (3,), {"slope": draw(3)}, {}),
    ("PRelu", (3, 2), {"slope": draw(1)}, {}),
    ("Tanh", (3,), {}, {}),
    ("Sigmoid", (3,), {}, {}),
    ("Elu", (3,), {}, {"alpha": 2.0}),
    ("Celu", (3,), {}, {"alpha": 2.0}),
    ("Selu", (3,), {}, {}),
    ("Gelu", (3,), {}, {}),
    ("Gelu", (3,), {}, {"approximate": "tanh"}),
    ("Mish", (3,), {}, {}),
    ("Softplus", (3,), {}, {}),
    ("Softsign", (3,), {}, {}),
    ("HardSigmoid", (3,), {}, {}),
    ("HardSigmoid", (3,), {}, {"alpha": 2.0, "beta": -1.0}),
    ("HardSwish", (3,), {}, {}),
    ("Clip", (3,), {"low": np.float64(-0.5), "high": np.float64(0.25)}, {}),
    ("Clip", (3,), {"": None, "high": np.float64(0.25)}, {}),
    ("Clip", (3,), {}, {"min": -0.5, "max": 0.5, "version": 6}),
    ("Abs", (3,), {}, {}),
    ("Erf", (3,), {}, {}),
    ("Neg", (3,), {}, {}),
    ("Identity", (3,), {}, {}),
    ("Dropout", (3,), {}, {}),
    ("Cast", (3,), {}, {"to": TensorProto.DOUBLE}),
    ("Add", IMAGE, {"b": draw(2, 1, 1)}, {}),
    ("Sub", IMAGE, {"b": draw(1, 2, 5, 6)}, {}),
    ("Mul", IMAGE, {"b": draw(2, 1, 1)}, {}),
    ("Div", IMAGE, {"b": draw(2, 1, 1)}, {}),
    ("Sum", (3,), {"b": draw(3), "c": draw(1, 3)}, {}),
    ("Flatten", IMAGE, {}, {}),
    ("Flatten", IMAGE, {}, {"axis": -3}),
    ("Reshape", IMAGE, {"shape": whole(0, 5, -1, 2)}, {}),
    ("Reshape", IMAGE, {"shape": whole(-1, 60)}, {}),
    ("Transpose", IMAGE, {}, {"perm": [0, 2, 3, 1]}),
    ("Squeeze", (1, 3), {"axes": whole(1)}, {}),
    ("Squeeze", (1, 3), {}, {"axes": [-2], "version": 11}),
    ("Unsqueeze", (3,), {"axes": whole(-1, 1)}, {}),
    ("Pad", IMAGE, {"pads": whole(0, 1, 0, 2, 0, 0, 1, 3)}, {}),
    ("Pad", IMAGE, {"pads": whole(1, 2), "": None, "axes": whole(3)}, {}),
    ("Pad", IMAGE, {"pads": whole(0, 0, 1, 2, 0, 0, 0, 2)}, {"mode": "wrap"}),
    ("Pad", (2, 4), {"pads": whole(0, 0, 1, 0, 0, 1)}, {"mode": "wrap"}),
    ("Pad", IMAGE, {}, {"pads": [0, 0, 1, 2, 0, 0, 0, 2], "version": 2}),
    ("Slice", IMAGE, {"a": whole(1), "b": whole(2**62), "c": whole(2), "d": whole(2)}, {}),
    ("Slice", IMAGE, {"a": whole(-1), "b": whole(-(2**62)), "c": whole(3), "d": whole(-2)}, {}),
    ("Slice", IMAGE, {"a": whole(0, 0), "b": whole(9, 1)}, {}),
    ("Gather", IMAGE, {"i": whole(4, 0)}, {"axis": 2}),
    ("Gather", IMAGE, {"i": np.int64(-1)}, {"axis": 1}),
    ("DepthToSpace", (8, 2, 1), {}, {"blocksize": 2}),
    ("DepthToSpace", (8, 2, 1), {}, {"blocksize": 2, "mode": "CRD"}),
    ("Concat", (3,), {"b": draw(1, 2)}, {"axis": 1}),
    (
        "BatchNormalization",
        IMAGE,
        {"s": draw(2), "b": draw(2), "m": draw(2), "v": abs(draw(2))},
        {"epsilon": 0.01},
    ),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes"), OPERATORS)
def test_operator(kind: str, shape: tuple, constants: dict, attributes: dict, tmp_path) -> None:
    stored = {name: value for name, value in constants.items() if name}
    path = single(tmp_path / "net.onnx", kind, shape, constants | stored, **attributes)
    chain = read_onnx(path)
    x = torch.randn(4, *shape, dtype=torch.float64)
    reference = onnx.reference.ReferenceEvaluator(str(path))
    expected = np.concatenate([reference.run(None, {"x": row[None].numpy()})[0] for row in x])
    check(chain, chain.exact().forward, shape, 1e-7)
    torch.testing.assert_close(chain.forward(x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def test_constants_are_computed(tmp_path: Path) -> None:
    weight = draw(3, 4)
    nodes = [
        constant("two", np.array([2.0])),
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("Mul", ["t", "two"], ["u"]),
        helper.make_node("MatMul", ["x", "u"], ["h"]),
        helper.make_node("Shape", ["h"], ["shape"]),
        helper.make_node("Reshape", ["h", "shape"], ["y"]),
    ]
    chain = read_onnx(save(tmp_path / "net.onnx", nodes, ("batch", 4), {"w": weight}))
    x = torch.randn(2, 4).double()
    torch.testing.assert_close(chain.forward(x), 2 * x @ torch.from_numpy(weight).T)


def test_a_bias_that_is_added_later_goes_into_the_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["b", "h"], ["y"]),
    ]
    constants = {"w": draw(4, 3), "b": draw(3)}
    chain = read_onnx(save(tmp_path / "net.onnx", nodes, (1, 4), constants))
    assert chain.last.bias.tolist() == constants["b"].tolist()


def test_single_precision_constants_of_bfloat16(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [1, 1], [1.5])
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1]) for n in "xy")
    nodes = [
        helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "net", [x], [y], [weight])
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    assert read_onnx(tmp_path / "net.onnx").last.weight.tolist() == [[1.5]]


REFUSED = [
    ("Softmax", (3,), {}, {}, "no Lipschitz bound is known"),
    ("ConvTranspose", IMAGE, {"w": draw(2, 1, 2, 2)}, {"auto_pad": "VALID"}, "padded alike"),
    ("TopK", (3,), {"k": whole(2)}, {"axis": 1, "sorted": 0}, "sorted=False"),
    ("ReduceL2", (3,), {"a": whole(0)}, {}, "within each input"),
    ("ThresholdedRelu", (3,), {}, {}, "no Lipschitz bound is known"),
    ("Pad", IMAGE, {"p": whole(0, 0, 1, 1, 0, 0, 1, 1)}, {"mode": "reflect"}, "'reflect'"),
    ("Pad", IMAGE, {"p": whole(0, 0, 1, 1, 0, 0, 1, 1), "v": np.float64(2)}, {}, "zeros are"),
    ("AveragePool", IMAGE, {}, {**POOL, "pads": [1, 0, 0, 0]}, "count_include_pad"),
    ("AveragePool", (1, 5, 5), {}, {"kernel_shape": [2, 2], "ceil_mode": 1}, "ceil_mode"),
    ("Cast", (3,), {}, {"to": TensorProto.INT32}, "jumps"),
    ("Mul", (3,), {"x ": None}, {}, "product of two values"),
    ("Pow", (3,), {"two": np.float64(2)}, {}, "no Lipschitz bound is known"),
    ("PRelu", (3, 2), {"slope": draw(2)}, {}, "one per channel"),
    ("Gather", IMAGE, {"i": np.array([[0]])}, {"axis": 1}, "list of fixed places"),
    ("Div", (3,), {"zero": np.zeros(3)}, {}, "divides by 0"),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes", "message"), REFUSED)
def test_refused(kind, shape, constants, attributes, message: str, tmp_path: Path) -> None:
    inputs = ["x", *(name.strip() for name in constants)]
    node = helper.make_node(kind, inputs, ["y"], name="/layer4/node", **attributes)
    stored = {name: value for name, value in constants.items() if value is not None}
    path = save(tmp_path / "net.onnx", [node], (1, *shape), stored)
    with pytest.raises(UnboundedModuleError, match=f"node '/layer4/node' .{kind}.: .*{message}"):
        read_onnx(path)


MISUSED = [
    ("Flatten", IMAGE, {}, {"axis": 2}, "flattens the batch"),
    ("Transpose", IMAGE, {}, {}, "moves the batch"),
    ("Squeeze", (3,), {}, {}, "squeezes the batch"),
    ("Unsqueeze", (3,), {"axes": whole(0)}, {}, "in front of the batch"),
    ("Reshape", (4,), {"s": whole(2, 2)}, {}, "one output for each input"),
    ("ReduceMean", (4,), {}, {}, "over the batch"),
    ("Gemm", (4,), {"w": draw(4, 2)}, {"transA": 1}, "transA=0"),
    ("Gemm", (4,), {"w": draw(3, 2)}, {}, r"shape \(\*, 3\), got \(4,\)"),
    ("Concat", (4,), {"b": draw(1, 4)}, {"axis": 0}, "along the batch"),
    ("Gather", (4,), {"i": whole(0)}, {"axis": 0}, "from the batch"),
    ("Add", (4,), {"b": draw(2, 4)}, {}, "make a larger one"),
    ("Reshape", (4,), {"s": whole(1, 3)}, {}, "does not take inputs"),
    ("Slice", (4,), {}, {}, "cannot be read"),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes", "message"), MISUSED)
def test_misused(kind, shape, constants, attributes, message: str, tmp_path: Path) -> None:
    path = single(tmp_path / "net.onnx", kind, shape, constants, **attributes)
    with pytest.raises(UsageError, match=f"node 'the_node' .{kind}.*{message}"):
        read_onnx(path)
