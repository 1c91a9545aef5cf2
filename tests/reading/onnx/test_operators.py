"""ONNX operator by operator, against the reference evaluator of ONNX."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from onnx import TensorProto, helper

from onelip.chains import Chain
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading import read_onnx
from onelip.reading.onnx.operators import OPERATORS as RULES
from tests.reading.checks import check
from tests.reading.onnx.files import constant, draw, numbers, run, save, single, whole

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
    (
        "Conv",
        (2, 3, 4, 3),
        {"w": draw(4, 1, 2, 3, 1), "b": draw(4)},
        {"pads": [1, 0, 2, 0, 1, 2], "strides": [1, 2, 1], "group": 2},
    ),
    ("MaxPool", IMAGE, {}, POOL),
    ("MaxPool", IMAGE, {}, {**POOL, "strides": [2, 1], "pads": [1, 0, 0, 2]}),
    ("MaxPool", IMAGE, {}, {**POOL, "auto_pad": "SAME_UPPER"}),
    ("AveragePool", IMAGE, {}, {**POOL, "strides": [2, 2]}),
    ("AveragePool", IMAGE, {}, {**POOL, "pads": [1, 0, 0, 2], "count_include_pad": 1}),
    ("GlobalAveragePool", IMAGE, {}, {}),
    ("GlobalAveragePool", (3, 4), {}, {}),
    ("ReduceMean", IMAGE, {"axes": numbers(-1, 2)}, {"keepdims": 0}),
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
    ("Reshape", IMAGE, {"shape": numbers(0, 5, -1, 2)}, {}),
    ("Reshape", IMAGE, {"shape": numbers(-1, 60)}, {}),
    ("Transpose", IMAGE, {}, {"perm": [0, 2, 3, 1]}),
    ("Squeeze", (1, 3), {"axes": numbers(1)}, {}),
    ("Squeeze", (1, 3), {}, {"axes": [-2], "version": 11}),
    ("Unsqueeze", (3,), {"axes": numbers(-1, 1)}, {}),
    ("Pad", IMAGE, {"pads": numbers(0, 1, 0, 2, 0, 0, 1, 3)}, {}),
    ("Pad", IMAGE, {"pads": numbers(1, 2), "": None, "axes": numbers(3)}, {}),
    ("Pad", IMAGE, {"pads": numbers(0, 0, 1, 2, 0, 0, 0, 2)}, {"mode": "wrap"}),
    ("Pad", (2, 4), {"pads": numbers(0, 0, 1, 0, 0, 1)}, {"mode": "wrap"}),
    ("Pad", IMAGE, {}, {"pads": [0, 0, 1, 2, 0, 0, 0, 2], "version": 2}),
    ("Slice", IMAGE, {"a": numbers(1), "b": numbers(2**62), "c": numbers(2), "d": numbers(2)}, {}),
    (
        "Slice",
        IMAGE,
        {"a": numbers(-1), "b": numbers(-(2**62)), "c": numbers(3), "d": numbers(-2)},
        {},
    ),
    ("Slice", IMAGE, {"a": numbers(0, 0), "b": numbers(9, 1)}, {}),
    ("Gather", IMAGE, {"i": numbers(4, 0)}, {"axis": 2}),
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


WHOLE: list[tuple[str, tuple, dict, dict]] = [
    ("Gemm", (3, 4), {"w": draw(3, 2)}, {"transA": 1}),
    ("Gemm", (3, 4), {"w": draw(2, 4), "b": draw(3, 1)}, {"transB": 1, "beta": 0.5}),
    ("Gemm", (3, 4), {"w": draw(2, 3), "x": None}, {"alpha": -2.0}),
    ("Gemm", (3, 4), {"w": draw(4, 2), "x": None}, {"transA": 1, "transB": 1}),
    ("MatMul", (4,), {"w": draw(4, 3)}, {}),
    ("MatMul", (4,), {"w": draw(4)}, {}),
    ("MatMul", (2, 4), {"w": draw(4)}, {}),
    ("MatMul", (4,), {"w": draw(2, 4, 3)}, {}),
    ("MatMul", (2, 3, 4), {"w": draw(2, 4, 5)}, {}),
    ("MatMul", (1, 3, 4), {"w": draw(2, 4, 5)}, {}),
    ("MatMul", (1, 2, 3, 4), {"w": draw(1, 2, 4, 5)}, {}),
    ("MatMul", (1, 2, 3, 4), {"w": draw(2, 4, 5)}, {}),
    ("MatMul", (1, 3, 4), {"w": draw(5, 3), "x": None}, {}),
    ("MatMul", (3, 4), {"w": draw(5, 3), "x": None}, {}),
    ("MatMul", (4,), {"w": draw(5, 4), "x": None}, {}),
    ("MatMul", (3, 4), {"w": draw(3), "x": None}, {}),
    ("MatMul", (2, 3, 4), {"w": draw(2, 5, 3), "x": None}, {}),
    ("Conv", (3, *IMAGE), {"w": draw(4, 1, 3, 3), "b": draw(4)}, {"group": 2, "pads": [1] * 4}),
    ("ConvTranspose", (1, *IMAGE), {"w": draw(2, 3, 3, 2), "b": draw(3)}, {"strides": [2, 2]}),
    ("ConvTranspose", (2, *IMAGE), {"w": draw(2, 3, 3, 2)}, {"pads": [1, 0, 1, 0]}),
    (
        "ConvTranspose",
        (1, *IMAGE),
        {"w": draw(2, 3, 3, 3), "b": draw(3)},
        {"pads": [1, 0, 0, 2], "strides": [2, 3], "output_padding": [1, 2]},
    ),
    ("ConvTranspose", (1, 2, 5), {"w": draw(2, 1, 4)}, {"strides": [2], "pads": [1, 2]}),
    ("ConvTranspose", (1, 2, 5), {"w": draw(2, 1, 4)}, {"strides": [2], "auto_pad": "SAME_UPPER"}),
    ("ConvTranspose", (1, 4, 5), {"w": draw(4, 2, 3)}, {"group": 2, "dilations": [2]}),
    ("ConvTranspose", (1, 2, 5), {"w": draw(2, 1, 3)}, {"strides": [3], "output_shape": [14]}),
    ("MaxPool", (2, *IMAGE), {}, POOL),
    ("MaxPool", (1, 2, 7), {}, {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    ("MaxPool", (1, 1, 3, 4, 4), {}, {"kernel_shape": [2, 2, 2]}),
    ("MaxPool", (1, 1, 5, 5), {}, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", (1, *IMAGE), {}, {**POOL, "pads": [1, 0, 0, 2]}),
    ("AveragePool", (2, 2, 7), {}, {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    ("AveragePool", (1, 1, 5, 5), {}, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("GlobalAveragePool", (2, *IMAGE), {}, {}),
    ("GlobalMaxPool", (2, *IMAGE), {}, {}),
    ("Relu", (5,), {}, {}),
    ("Relu", (), {}, {}),
    ("PRelu", (2, 3, 2), {"slope": draw(3, 1)}, {}),
    ("Sin", (1, 3), {}, {}),
    ("Cos", (1, 3), {}, {}),
    ("Atan", (1, 3), {}, {}),
    ("Asinh", (1, 3), {}, {}),
    ("Shrink", (1, 3), {}, {"lambd": 0.5, "bias": 0.5}),
    ("ThresholdedRelu", (1, 3), {}, {"alpha": 0.0}),
    ("Add", (1, 3, 1), {"b": draw(2, 1, 4)}, {}),
    ("Sub", (3,), {"b": draw(2, 3)}, {}),
    ("Sub", (1, 3), {"b": draw(1, 2, 1), "x": None}, {}),
    ("Mul", (1, 3, 1), {"b": draw(1, 1, 4)}, {}),
    ("Mul", (2, 3), {"b": draw(2, 3)}, {}),
    ("Div", (2, 3), {"b": draw(3)}, {}),
    ("Max", (1, 3), {"b": draw(1, 2, 1)}, {}),
    ("Min", (1, 3), {"b": draw(3), "c": draw(1)}, {}),
    ("Mean", (1, 3), {"b": draw(3), "c": draw(1)}, {}),
    ("Flatten", (2, 3, 2), {}, {"axis": 2}),
    ("Flatten", (2, 3, 2), {}, {"axis": 0}),
    ("Reshape", (2, 3, 2), {"s": numbers(4, -1)}, {}),
    ("Transpose", (2, 3, 2), {}, {}),
    ("Transpose", (1, 3, 2), {}, {"perm": [1, 0, 2]}),
    ("Squeeze", (1, 3, 1), {}, {}),
    ("Unsqueeze", (2, 3), {"a": numbers(0, 3)}, {}),
    ("Expand", (1, 3, 1), {"s": numbers(2, 1, 4)}, {}),
    ("Expand", (1, 3, 1), {"s": numbers(1, 3, 4)}, {}),
    ("Tile", (1, 3, 2), {"r": numbers(1, 2, 3)}, {}),
    ("Tile", (1, 3), {"r": numbers(2, 1)}, {}),
    ("Gather", (1, 5, 2), {"i": np.array([[0, 0], [3, -1]])}, {"axis": 1}),
    ("Gather", (3, 2), {"i": numbers(2, 0, 2)}, {"axis": 0}),
    ("GatherElements", (1, 3, 2), {"i": np.array([[[0, 2]]])}, {"axis": 1}),
    ("GatherND", (2, 3), {"i": np.array([[0, 1], [1, 1], [0, 1]])}, {}),
    ("Slice", (4, 3), {"a": numbers(1), "b": numbers(3), "c": numbers(0)}, {}),
    ("Split", (1, 6), {"s": numbers(6)}, {"axis": 1}),
    ("SpaceToDepth", (1, 2, 4, 2), {}, {"blocksize": 2}),
    ("Trilu", (1, 3, 3), {}, {"upper": 0}),
    ("Compress", (1, 4), {"c": np.array([True, False, True])}, {"axis": 1}),
    ("Pad", (1, *IMAGE), {"p": numbers(0, 0, 1, 2, 0, 0, 0, 2), "v": np.float64(2)}, {}),
    ("Pad", (1, *IMAGE), {"p": numbers(0, 0, 1, 2, 0, 0, 0, 2)}, {"mode": "reflect"}),
    ("Pad", (1, *IMAGE), {"p": numbers(0, 0, 1, 2, 0, 0, 3, 2)}, {"mode": "edge"}),
    ("Pad", (1, *IMAGE), {"p": numbers(0, 0, -1, 2, 0, 0, 0, -2)}, {}),
    ("Pad", (3,), {"p": numbers(2, 1)}, {"mode": "reflect"}),
    ("Pad", (1, 3), {}, {"pads": [0, 1, 0, 0], "value": 2.0, "version": 10}),
    ("Concat", (2, 3), {"b": draw(1, 3)}, {"axis": 0}),
    ("Concat", (1, 3), {"b": draw(1, 3), "x": None, "x ": None}, {"axis": -1}),
    ("ScatterND", (1, 4), {"i": np.array([[0, 1]]), "u": draw(1)}, {}),
    ("ScatterElements", (1, 4), {"i": np.array([[0, 3]]), "u": draw(1, 2)}, {"axis": 1}),
    ("Where", (2, 3), {"c": np.array([[True], [False]]), "x": None, "b": draw(3)}, {}),
    ("Where", (1, 3), {"c": np.array([True, False, True]), "x": None, "x ": None}, {}),
    ("ReduceSum", (2, 3, 2), {}, {}),
    ("ReduceSum", (1, 3, 2), {"a": numbers(1)}, {"keepdims": 0}),
    ("ReduceMean", (1, 3, 2), {"a": numbers(1)}, {}),
    ("ReduceMean", (1, 3, 2), {}, {"noop_with_empty_axes": 1}),
    ("ReduceMax", (1, 3, 2), {"a": numbers(1)}, {"keepdims": 0}),
    ("ReduceMin", (2, 3, 2), {}, {}),
    ("ReduceL1", (1, 3, 2), {"a": numbers(2)}, {}),
    ("ReduceL2", (1, 3, 2), {}, {}),
    ("ReduceLogSumExp", (1, 3, 2), {"a": numbers(2)}, {}),
    ("CumSum", (1, 4), {"a": np.int64(1)}, {}),
    ("CumSum", (1, 4), {"a": np.int64(1)}, {"exclusive": 1, "reverse": 1}),
    ("Softmax", (1, 4), {}, {}),
    ("Softmax", (1, 3, 2), {}, {"axis": 1}),
    ("Softmax", (2, 3, 2), {}, {"axis": 1, "version": 11}),
    ("Softmax", (2, 3, 2), {}, {"axis": 0}),
    ("LogSoftmax", (1, 4), {}, {}),
    ("InstanceNormalization", (1, *IMAGE), {"s": draw(2), "b": draw(2)}, {"epsilon": 0.1}),
    ("InstanceNormalization", (2, *IMAGE), {"s": draw(2), "b": draw(2)}, {"epsilon": 0.1}),
    ("LayerNormalization", (1, 3, 4), {"s": draw(4), "b": draw(4)}, {"epsilon": 0.1}),
    ("LayerNormalization", (1, 3, 4), {"s": draw(3, 4)}, {"epsilon": 0.1, "axis": 1}),
    (
        "GroupNormalization",
        (1, 4, 3),
        {"s": draw(4), "b": draw(4)},
        {"epsilon": 0.1, "num_groups": 2, "version": 21},
    ),
    ("Einsum", (1, 3, 4), {"w": draw(4, 2)}, {"equation": "bij,jk->bik"}),
    ("Einsum", (1, 3, 4), {"w": draw(2, 3, 5), "x": None}, {"equation": "hik,bij->bhjk"}),
    ("Einsum", (2, 3, 4), {"w": draw(2, 4)}, {"equation": "bij,bj->bi"}),
    ("Einsum", (2, 3, 4), {"w": draw(5)}, {"equation": "bij,k->bj"}),
    ("Einsum", (2, 3, 4), {}, {"equation": "bij->jb"}),
    ("Einsum", (3, 4), {"w": draw(4, 3)}, {"equation": "ij,jk"}),
    ("LRN", (1, 5, 2, 2), {}, {"size": 3, "alpha": 2.0, "beta": 0.75, "bias": 0.5}),
    ("LRN", (1, 5, 2, 1), {}, {"size": 5, "alpha": 9.0, "beta": 2.0}),
    (
        "BatchNormalization",
        (3, *IMAGE),
        {"s": draw(2), "b": draw(2), "m": draw(2), "v": abs(draw(2))},
        {},
    ),
]
RESIZED = [
    ({"mode": mode, "coordinate_transformation_mode": at}, scales)
    for mode in ("nearest", "linear", "cubic")
    for at in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")
    for scales in ([2.0, 2.0], [0.5, 1.5], [3.0, 1.0])
]
WHOLE += [
    ("Resize", (1, 1, 4, 4), {"": None, "s": np.array([1, 1, *s], np.float32)}, options)
    for options, s in RESIZED
]
WHOLE += [
    ("Resize", (1, 2, 4, 3), {"": None, " ": None, "s": numbers(1, 2, 3, 5)}, {"mode": "linear"}),
    (
        "Resize",
        (1, 1, 4),
        {"": None, "s": np.array([1, 1, 2], np.float32)},
        {"mode": "nearest", "nearest_mode": "ceil"},
    ),
    ("Upsample", (1, 1, 3, 2), {"s": np.array([1, 1, 2, 2], np.float32)}, {"version": 9}),
]


EVALUATED_OTHERWISE = ("Resize", "ConvTranspose", "Upsample", "LRN")
"""Operators of which the reference evaluator and onnxruntime differ."""


def _compare(path: Path, whole_shape: tuple) -> None:
    """Values of the reference evaluator, and a bound above every Jacobian."""
    chain = read_onnx(path)
    x = torch.randn(4, *whole_shape, dtype=torch.float64)
    reference = onnx.reference.ReferenceEvaluator(str(path))
    expected = np.stack([reference.run(None, {"x": row.numpy()})[0] for row in x])
    found = chain.forward(_rows(chain, x))
    check(chain, chain.exact().forward, chain.inputs, 1e-7)
    torch.testing.assert_close(
        found.flatten(), torch.from_numpy(expected).flatten(), rtol=1e-6, atol=1e-6
    )


def _rows(chain: Chain, x: torch.Tensor) -> torch.Tensor:
    """Inputs of the chain in tensors of the file, which hold one or several each."""
    return x.reshape(-1, *chain.inputs)


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes"), OPERATORS)
def test_operator(kind: str, shape: tuple, constants: dict, attributes: dict, tmp_path) -> None:
    path = single(tmp_path / "net.onnx", kind, shape, constants, **attributes)
    _compare(path, (1, *shape))


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes"), WHOLE)
def test_operator_on_whole_tensors(
    kind: str, shape: tuple, constants: dict, attributes: dict, tmp_path
) -> None:
    path = whole(tmp_path / "net.onnx", kind, shape, constants, **attributes)
    wrong = kind == "Pad" and min(next(iter(constants.values()), [0])) < 0
    if kind not in EVALUATED_OTHERWISE and attributes.get("version") != 11 and not wrong:
        _compare(path, shape)
    chain = read_onnx(path)
    check(chain, chain.exact().forward, chain.inputs, 1e-7)
    path = whole(tmp_path / "single.onnx", kind, shape, constants, **attributes, single=True)
    chain, x = read_onnx(path), torch.randn(3, *shape)
    expected = run(path, x).flatten()
    found = chain.forward(_rows(chain, x)).flatten()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_page_names_every_operator() -> None:
    page = Path(__file__).parents[3] / "docs" / "network-bounds.md"
    named = set(re.findall(r"`(\w+)`", page.read_text()))
    assert set(RULES) <= named


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
    ("TopK", (3,), {"k": numbers(2)}, {"axis": 1, "sorted": 0}, "sorted=False"),
    ("ThresholdedRelu", (3,), {}, {}, "jumps: no Lipschitz constant exists"),
    ("Shrink", (3,), {}, {}, "jumps"),
    ("Sign", (3,), {}, {}, "Sign jumps: .* on any box that its jump meets"),
    ("ArgMax", (3,), {}, {}, "ArgMax jumps"),
    ("Cast", (3,), {}, {"to": TensorProto.INT32}, "jumps"),
    ("Exp", (3,), {}, {}, "Exp has no global Lipschitz constant: .* A local bound"),
    ("Log", (3,), {}, {}, "no global Lipschitz constant"),
    ("Sqrt", (3,), {}, {}, "no global Lipschitz constant"),
    ("Reciprocal", (3,), {}, {}, "no global Lipschitz constant"),
    ("Div", (3,), {"one": draw(3), "x": None}, {}, "no global"),
    ("Pow", (3,), {"four": np.float64(4)}, {}, "the power 4 has no global"),
    ("PRelu", (3, 2), {"slope": draw(2)}, {}, "one per channel"),
    ("Div", (3,), {"zero": np.zeros(3)}, {}, "divides by 0"),
    (
        "MatMul",
        (3, 3),
        {"x ": None},
        {},
        "product of two matrices .* has no global .* unless both are bounded",
    ),
    ("Pad", IMAGE, {"p": numbers(0, 0, 1, 1, 0, 0, 1, 1), "v": np.float64(np.inf)}, {}, "infinite"),
    ("Resize", (1, 3), {"": None, "s": np.ones(3, np.float32) * 2}, {"antialias": 1}, "antialias"),
    ("ScatterND", (4,), {"i": np.array([[0, 1]]), "u": draw(1)}, {"reduction": "mul"}, "'mul'"),
    ("Conv", (1, 3, 3, 3), {"w": draw(1, 1, 2, 2, 2, 2)}, {}, "one to three axes"),
    ("LayerNormalization", (3,), {"s": draw(3)}, {"epsilon": 0.0}, "epsilon 0.0 jumps"),
    ("Gather", (3,), {"t": draw(4), "x": None}, {}, "depends on the input jumps"),
    ("Det", (3, 3), {}, {}, "Det has no global"),
    ("LpNormalization", (3,), {}, {}, "LpNormalization divides by a length .* without an epsilon"),
    ("Bernoulli", (3,), {}, {}, "is random"),
    ("GlobalLpPool", (3, 3), {}, {}, "no Lipschitz bound is known: there is no rule"),
    ("Einsum", (3, 3), {"x ": None}, {"equation": "abc,abd->acd"}, "contraction of two values"),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes", "message"), REFUSED)
def test_refused(kind, shape, constants, attributes, message: str, tmp_path: Path) -> None:
    path = single(tmp_path / "net.onnx", kind, shape, constants, **attributes)
    with pytest.raises(UnboundedModuleError, match=f"node 'the_node' .{kind}.: .*{message}"):
        read_onnx(path)


MISUSED = [
    ("Gemm", (4,), {"w": draw(3, 2)}, {}, r"shape \(\*, 3\), got \(4,\)"),
    ("Reshape", (4,), {"s": numbers(1, 3)}, {}, "cannot reshape"),
    ("Add", (4,), {"b": draw(3)}, {}, "do not fit together"),
    ("Slice", (4,), {}, {}, "cannot be read"),
    ("Softmax", (4,), {}, {"axis": 5}, "axis 5 of a tensor of 2 axes"),
    ("Clip", (4,), {"a": np.float64(1), "b": np.float64(-1)}, {}, "a constant"),
    ("Resize", (4,), {"": None, "s": np.zeros(2, np.float32)}, {}, "no pixels"),
    ("BatchNormalization", (4,), {n: draw(3) for n in "sbmv"}, {}, r"\(3, ...\)"),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes", "message"), MISUSED)
def test_misused(kind, shape, constants, attributes, message: str, tmp_path: Path) -> None:
    path = single(tmp_path / "net.onnx", kind, shape, constants, **attributes)
    with pytest.raises(UsageError, match=f"node 'the_node' .{kind}.*{message}"):
        read_onnx(path)
