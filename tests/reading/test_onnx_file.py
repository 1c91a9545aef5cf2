"""ONNX files: against onnxruntime, and operator by operator."""

import contextlib
import io
import logging
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading import load, read_onnx
from tests.reading.checks import check, naive, opaque, steepest
from tests.reading.networks import NETWORKS, SHAPE, build


def _run(path: Path, x: Tensor) -> Tensor:
    """Onnxruntime, one input at a time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: row[None].numpy()})[0] for row in x]
    return torch.from_numpy(np.concatenate(rows))


def _written(model: nn.Module, path: Path, batch: int = 1, **options) -> Path:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        torch.onnx.export(model, (torch.zeros(batch, *SHAPE),), path, **options)
    return path


def _compare(path: Path, model: nn.Module) -> None:
    chain, x = load(path), torch.rand(3, *SHAPE)
    torch.testing.assert_close(chain.forward(x), _run(path, x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(chain.forward(x), model(x), rtol=1e-4, atol=1e-5)
    exact = chain.exact()
    assert naive(exact) >= steepest(exact.forward, SHAPE) * (1 - 1e-10)
    assert naive(exact) >= steepest(model.double(), SHAPE) * (1 - 1e-5)


@pytest.mark.parametrize(
    "name",
    ["smooth", *(pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS if n != "smooth")],
)
def test_round_trip(name: str, tmp_path: Path) -> None:
    model = build(name)
    _compare(_written(model, tmp_path / "net.onnx", dynamo=True), model)


def test_dynamic_batch(tmp_path: Path) -> None:
    model = build("resnet")
    sizes = ({0: torch.export.Dim("batch")},)
    path = _written(model, tmp_path / "net.onnx", 2, dynamo=True, dynamic_shapes=sizes)
    _compare(path, model)
    assert opaque(load(path)) == ["Ways", "Ways"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("version", [11, 17])
@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet", "smooth"])
def test_files_of_the_earlier_exporter(name: str, version: int, tmp_path: Path) -> None:
    model = build(name)
    options = {"dynamo": False, "opset_version": version}
    dynamic = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    _compare(_written(model, tmp_path / "a.onnx", **options), model)
    _compare(_written(model.float(), tmp_path / "b.onnx", **options, **dynamic), model)


def _save(
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


def _single(path: Path, kind: str, shape: tuple, constants: dict, **attributes) -> Path:
    version = attributes.pop("version", 20)
    node = helper.make_node(kind, ["x", *constants], ["y"], name="the_node", **attributes)
    stored = {name: value for name, value in constants.items() if name}
    return _save(path, [node], (1, *shape), stored, version=version)


def _draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def _whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


IMAGE = (2, 5, 6)
POOL = {"kernel_shape": [2, 3]}
OPERATORS: list[tuple[str, tuple, dict, dict]] = [
    ("Gemm", (4,), {"w": _draw(4, 3)}, {}),
    ("Gemm", (4,), {"w": _draw(3, 4), "b": _draw(1, 3)}, {"transB": 1, "alpha": 0.5, "beta": 3.0}),
    ("Gemm", (4,), {"w": _draw(4, 3), "b": _draw(1)}, {}),
    ("MatMul", (4,), {"w": _draw(4, 3)}, {}),
    ("MatMul", (2, 4), {"w": _draw(4, 3)}, {}),
    ("Conv", IMAGE, {"w": _draw(3, 2, 3, 2), "b": _draw(3)}, {"pads": [1, 0, 2, 1]}),
    ("Conv", IMAGE, {"w": _draw(3, 2, 3, 2)}, {"strides": [2, 1], "dilations": [1, 2]}),
    ("Conv", IMAGE, {"w": _draw(4, 1, 2, 4)}, {"auto_pad": "SAME_UPPER", "group": 2}),
    ("Conv", IMAGE, {"w": _draw(3, 2, 2, 4)}, {"auto_pad": "SAME_LOWER"}),
    ("Conv", IMAGE, {"w": _draw(3, 2, 3, 3)}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", IMAGE, {"w": _draw(3, 2, 3, 3)}, {"auto_pad": "VALID"}),
    ("Conv", (2, 7), {"w": _draw(3, 2, 3)}, {"pads": [2, 0], "strides": [2]}),
    ("MaxPool", IMAGE, {}, POOL),
    ("MaxPool", IMAGE, {}, {**POOL, "strides": [2, 1], "pads": [1, 0, 0, 2]}),
    ("MaxPool", IMAGE, {}, {**POOL, "auto_pad": "SAME_UPPER"}),
    ("AveragePool", IMAGE, {}, {**POOL, "strides": [2, 2]}),
    ("AveragePool", IMAGE, {}, {**POOL, "pads": [1, 0, 0, 2], "count_include_pad": 1}),
    ("GlobalAveragePool", IMAGE, {}, {}),
    ("GlobalAveragePool", (3, 4), {}, {}),
    ("ReduceMean", IMAGE, {"axes": _whole(-1, 2)}, {"keepdims": 0}),
    ("ReduceMean", IMAGE, {}, {"axes": [2, 3], "version": 13}),
    ("Relu", (3,), {}, {}),
    ("LeakyRelu", (3,), {}, {}),
    ("LeakyRelu", (3,), {}, {"alpha": -1.5}),
    ("PRelu", (3, 2), {"slope": _draw(3, 1)}, {}),
    ("PRelu", (3,), {"slope": _draw(3)}, {}),
    ("PRelu", (3, 2), {"slope": _draw(1)}, {}),
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
    ("Add", IMAGE, {"b": _draw(2, 1, 1)}, {}),
    ("Sub", IMAGE, {"b": _draw(1, 2, 5, 6)}, {}),
    ("Mul", IMAGE, {"b": _draw(2, 1, 1)}, {}),
    ("Div", IMAGE, {"b": _draw(2, 1, 1)}, {}),
    ("Sum", (3,), {"b": _draw(3), "c": _draw(1, 3)}, {}),
    ("Flatten", IMAGE, {}, {}),
    ("Flatten", IMAGE, {}, {"axis": -3}),
    ("Reshape", IMAGE, {"shape": _whole(0, 5, -1, 2)}, {}),
    ("Reshape", IMAGE, {"shape": _whole(-1, 60)}, {}),
    ("Transpose", IMAGE, {}, {"perm": [0, 2, 3, 1]}),
    ("Squeeze", (1, 3), {"axes": _whole(1)}, {}),
    ("Squeeze", (1, 3), {}, {"axes": [-2], "version": 11}),
    ("Unsqueeze", (3,), {"axes": _whole(-1, 1)}, {}),
    ("Pad", IMAGE, {"pads": _whole(0, 1, 0, 2, 0, 0, 1, 3)}, {}),
    ("Pad", IMAGE, {"pads": _whole(1, 2), "": None, "axes": _whole(3)}, {}),
    ("Pad", IMAGE, {"pads": _whole(0, 0, 1, 2, 0, 0, 0, 2)}, {"mode": "wrap"}),
    ("Pad", (2, 4), {"pads": _whole(0, 0, 1, 0, 0, 1)}, {"mode": "wrap"}),
    ("Pad", IMAGE, {}, {"pads": [0, 0, 1, 2, 0, 0, 0, 2], "version": 2}),
    ("Slice", IMAGE, {"a": _whole(1), "b": _whole(2**62), "c": _whole(2), "d": _whole(2)}, {}),
    ("Slice", IMAGE, {"a": _whole(-1), "b": _whole(-(2**62)), "c": _whole(3), "d": _whole(-2)}, {}),
    ("Slice", IMAGE, {"a": _whole(0, 0), "b": _whole(9, 1)}, {}),
    ("Gather", IMAGE, {"i": _whole(4, 0)}, {"axis": 2}),
    ("Gather", IMAGE, {"i": np.int64(-1)}, {"axis": 1}),
    ("DepthToSpace", (8, 2, 1), {}, {"blocksize": 2}),
    ("DepthToSpace", (8, 2, 1), {}, {"blocksize": 2, "mode": "CRD"}),
    ("Concat", (3,), {"b": _draw(1, 2)}, {"axis": 1}),
    (
        "BatchNormalization",
        IMAGE,
        {"s": _draw(2), "b": _draw(2), "m": _draw(2), "v": abs(_draw(2))},
        {"epsilon": 0.01},
    ),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes"), OPERATORS)
def test_operator(kind: str, shape: tuple, constants: dict, attributes: dict, tmp_path) -> None:
    stored = {name: value for name, value in constants.items() if name}
    path = _single(tmp_path / "net.onnx", kind, shape, constants | stored, **attributes)
    chain = read_onnx(path)
    x = torch.randn(4, *shape, dtype=torch.float64)
    reference = onnx.reference.ReferenceEvaluator(str(path))
    expected = np.concatenate([reference.run(None, {"x": row[None].numpy()})[0] for row in x])
    check(chain, chain.exact().forward, shape, 1e-7)
    torch.testing.assert_close(chain.forward(x), torch.from_numpy(expected), rtol=1e-6, atol=1e-6)


def _constant(name: str, value: np.ndarray):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


def test_constants_are_computed(tmp_path: Path) -> None:
    weight = _draw(3, 4)
    nodes = [
        _constant("two", np.array([2.0])),
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("Mul", ["t", "two"], ["u"]),
        helper.make_node("MatMul", ["x", "u"], ["h"]),
        helper.make_node("Shape", ["h"], ["shape"]),
        helper.make_node("Reshape", ["h", "shape"], ["y"]),
    ]
    chain = read_onnx(_save(tmp_path / "net.onnx", nodes, ("batch", 4), {"w": weight}))
    x = torch.randn(2, 4).double()
    torch.testing.assert_close(chain.forward(x), 2 * x @ torch.from_numpy(weight).T)


def test_a_bias_that_is_added_later_goes_into_the_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["b", "h"], ["y"]),
    ]
    constants = {"w": _draw(4, 3), "b": _draw(3)}
    chain = read_onnx(_save(tmp_path / "net.onnx", nodes, (1, 4), constants))
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
    ("ConvTranspose", IMAGE, {"w": _draw(2, 1, 2, 2)}, {"auto_pad": "VALID"}, "padded alike"),
    ("TopK", (3,), {"k": _whole(2)}, {"axis": 1, "sorted": 0}, "sorted=False"),
    ("ReduceL2", (3,), {"a": _whole(0)}, {}, "within each input"),
    ("ThresholdedRelu", (3,), {}, {}, "no Lipschitz bound is known"),
    ("Pad", IMAGE, {"p": _whole(0, 0, 1, 1, 0, 0, 1, 1)}, {"mode": "reflect"}, "'reflect'"),
    ("Pad", IMAGE, {"p": _whole(0, 0, 1, 1, 0, 0, 1, 1), "v": np.float64(2)}, {}, "zeros are"),
    ("AveragePool", IMAGE, {}, {**POOL, "pads": [1, 0, 0, 0]}, "count_include_pad"),
    ("AveragePool", (1, 5, 5), {}, {"kernel_shape": [2, 2], "ceil_mode": 1}, "ceil_mode"),
    ("Cast", (3,), {}, {"to": TensorProto.INT32}, "jumps"),
    ("Mul", (3,), {"x ": None}, {}, "product of two values"),
    ("Pow", (3,), {"two": np.float64(2)}, {}, "no Lipschitz bound is known"),
    ("PRelu", (3, 2), {"slope": _draw(2)}, {}, "one per channel"),
    ("Gather", IMAGE, {"i": np.array([[0]])}, {"axis": 1}, "list of fixed places"),
    ("Div", (3,), {"zero": np.zeros(3)}, {}, "divides by 0"),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes", "message"), REFUSED)
def test_refused(kind, shape, constants, attributes, message: str, tmp_path: Path) -> None:
    inputs = ["x", *(name.strip() for name in constants)]
    node = helper.make_node(kind, inputs, ["y"], name="/layer4/node", **attributes)
    stored = {name: value for name, value in constants.items() if value is not None}
    path = _save(tmp_path / "net.onnx", [node], (1, *shape), stored)
    with pytest.raises(UnboundedModuleError, match=f"node '/layer4/node' .{kind}.: .*{message}"):
        read_onnx(path)


MISUSED = [
    ("Flatten", IMAGE, {}, {"axis": 2}, "flattens the batch"),
    ("Transpose", IMAGE, {}, {}, "moves the batch"),
    ("Squeeze", (3,), {}, {}, "squeezes the batch"),
    ("Unsqueeze", (3,), {"axes": _whole(0)}, {}, "in front of the batch"),
    ("Reshape", (4,), {"s": _whole(2, 2)}, {}, "one output for each input"),
    ("ReduceMean", (4,), {}, {}, "over the batch"),
    ("Gemm", (4,), {"w": _draw(4, 2)}, {"transA": 1}, "transA=0"),
    ("Gemm", (4,), {"w": _draw(3, 2)}, {}, r"shape \(\*, 3\), got \(4,\)"),
    ("Concat", (4,), {"b": _draw(1, 4)}, {"axis": 0}, "along the batch"),
    ("Gather", (4,), {"i": _whole(0)}, {"axis": 0}, "from the batch"),
    ("Add", (4,), {"b": _draw(2, 4)}, {}, "make a larger one"),
    ("Reshape", (4,), {"s": _whole(1, 3)}, {}, "does not take inputs"),
    ("Slice", (4,), {}, {}, "cannot be read"),
]


@pytest.mark.parametrize(("kind", "shape", "constants", "attributes", "message"), MISUSED)
def test_misused(kind, shape, constants, attributes, message: str, tmp_path: Path) -> None:
    path = _single(tmp_path / "net.onnx", kind, shape, constants, **attributes)
    with pytest.raises(UsageError, match=f"node 'the_node' .{kind}.*{message}"):
        read_onnx(path)


def test_an_operator_of_someone_else(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="mine", name="own")
    path = _save(tmp_path / "net.onnx", [node], (1, 4), {})
    with pytest.raises(UnboundedModuleError, match=r"node 'own' \(Relu\)"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((2, 4), "batch of 2"), ((1, "n"), "only the batch"), ((4,), "only the batch")],
)
def test_inputs(shape: tuple, message: str, tmp_path: Path) -> None:
    path = _save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], shape, {})
    with pytest.raises(UsageError, match=message):
        read_onnx(path)


def test_networks_that_are_none(tmp_path: Path) -> None:
    path = _save(tmp_path / "a.onnx", [_constant("y", _draw(1, 2))], (1, 2), {})
    with pytest.raises(UsageError, match="does not depend on the input"):
        read_onnx(path)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.DOUBLE, (1, 2)))
    onnx.save(model, path)
    with pytest.raises(UsageError, match="2 and 1"):
        read_onnx(path)
    path = _save(tmp_path / "b.onnx", [helper.make_node("Relu", ["w"], ["y"])], (1, 2), {})
    with pytest.raises(UsageError, match="'w' is not computed before"):
        read_onnx(path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"onelip\[onnx\]"):
        read_onnx(tmp_path / "net.onnx")
