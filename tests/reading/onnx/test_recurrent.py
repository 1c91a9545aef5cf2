"""Recurrent layers against onnxruntime, and their constants against Jacobians."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.reading import read_onnx
from tests.oracles import sigma_max
from tests.reading.onnx.files import run

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, INPUTS, SIZE = 3, 2, 2


def layer(
    path: Path, kind: str, *, scale: float = 1.0, steps: int = STEPS, copies: int = 1,
    result: int = 0, seed: int = 0, states: bool = True, **attributes,
) -> Path:  # fmt: skip
    """A file of one layer whose output y is all states, the last ones, or the last cells."""
    rng = np.random.default_rng(seed)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = GATES[kind] * SIZE
    drawn = {
        "W": (directions, rows, INPUTS),
        "R": (directions, rows, SIZE),
        "B": (directions, 2 * rows),
        "h": (directions, copies, SIZE),
        "c": (directions, copies, SIZE),
    }
    arrays = {n: (scale * rng.normal(size=s)).astype(np.float32) for n, s in drawn.items()}
    inputs = ["x", "W", "R", "B", ""] + (["h", *(["c"] if kind == "LSTM" else [])] * states)
    outputs = ["" if i != result else "y" for i in range(result + 1)]
    node = helper.make_node(kind, inputs, outputs, hidden_size=SIZE, **attributes)
    shape = (steps, copies, INPUTS)
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(arrays[n], n) for n in inputs if n in arrays]
    graph = helper.make_graph([node], "net", [x], [y], stored)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path
    )
    return path


def steepest(chain, scale: float) -> float:
    exact = chain.exact()
    x = scale * torch.randn(1, *chain.inputs, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(exact.forward, x)
    return sigma_max(jacobian.reshape(-1, x.numel()))


def test_values_and_constants(each, tmp_path):
    variants = {
        "LSTM": [{}],
        "GRU": [{"linear_before_reset": 0}, {"linear_before_reset": 1}],
        "RNN": [{}, {"activations": ["Relu"]}],
    }
    cases = [
        (kind, options, direction, result)
        for kind, choices in variants.items()
        for options, direction in itertools.product(
            choices, ("forward", "reverse", "bidirectional")
        )
        for result in range(3 if kind == "LSTM" else 2)
    ]
    for kind, given, direction, result in each(cases):
        both = direction == "bidirectional"
        options = {n: v * 2 if both and n == "activations" else v for n, v in given.items()}
        for seed, copies in ((0, 1), (1, 2)):
            path = layer(
                tmp_path / "net.onnx", kind, direction=direction, result=result, seed=seed,
                copies=copies, scale=(0.3, 1.0)[seed], **options,
            )  # fmt: skip
            chain = read_onnx(path)
            x = torch.randn(3, STEPS, copies, INPUTS)
            found = chain.forward(x.reshape(-1, *chain.inputs)).flatten()
            assert torch.allclose(found, run(path, x).flatten(), rtol=1e-5, atol=1e-5)
            constant = chain.blocks[0].nonlinearity.constant
            assert all(steepest(chain, scale) <= constant for scale in (0.1, 0.5, 1, 2, 5))


def test_a_plain_layer_of_relu_attains_its_constant(tmp_path):
    """One number in and one out, all slopes 1: the lower triangular matrix of powers."""
    rng = np.random.default_rng(0)
    arrays = {"W": rng.random((1, 1, 1)), "R": rng.random((1, 1, 1)), "B": 9 * np.ones((1, 2))}
    node = helper.make_node("RNN", ["x", *arrays], ["y"], hidden_size=1, activations=["Relu"])
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (4, 1, 1))
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in arrays.items()]
    graph = helper.make_graph([node], "net", [x], [y], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "a.onnx")
    chain = read_onnx(tmp_path / "a.onnx")
    assert chain.blocks[0].nonlinearity.constant == pytest.approx(steepest(chain, 0.1), rel=1e-9)


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        ("LSTM", {"clip": 1.0}, "clip or input_forget"),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "activations"),
        ("GRU", {"layout": 1}, "steps, batch, inputs"),
    ],
)
def test_refused(kind, attributes, message, tmp_path):
    path = layer(tmp_path / "net.onnx", kind, states=False, **attributes)
    with pytest.raises(UnboundedModuleError, match=message):
        read_onnx(path)


def test_a_bound_that_overflows(tmp_path):
    path = layer(tmp_path / "net.onnx", "LSTM", scale=1e4, steps=100)
    with pytest.raises(NonFiniteError, match="fewer steps"):
        read_onnx(path)
