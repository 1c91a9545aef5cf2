"""Layers that files write out in small operators: one activation or normalisation each."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from onelip.errors import UnboundedModuleError
from onelip.reading import read_onnx
from tests.reading.checks import naive, steepest
from tests.reading.onnx.files import draw, in_single, numbers, run, save

Node = tuple[str, list[str], str, dict]
F = np.float64


def written(path: Path, nodes: list[Node], shape: tuple, constants: dict, **options) -> Path:
    made = [helper.make_node(kind, ins, [out], **more) for kind, ins, out, more in nodes]
    stored = {name: in_single(np.asarray(value)) for name, value in constants.items()}
    return save(path, made, shape, stored, kind=1, **options)


def checked(path: Path, shape: tuple) -> float:
    """The product of norms, after comparing values and Jacobians."""
    chain = read_onnx(path)
    for scale in (0.1, 1.0, 5.0):
        x = scale * torch.randn(3, *shape)
        found = chain.forward(x.reshape(-1, *chain.inputs)).flatten()
        torch.testing.assert_close(found, run(path, x).flatten(), rtol=1e-5, atol=2e-5)
    bound = naive(chain.exact())
    assert bound >= steepest(chain.exact().forward, chain.inputs, points=8) * (1 - 1e-7)
    return bound


GELU = [
    ("Div", ["h", "root"], "a", {}),
    ("Erf", ["a"], "b", {}),
    ("Add", ["b", "one"], "c", {}),
]
ROOT_OF_2_OVER_PI = math.sqrt(2 / math.pi)
TANH_GELU = {
    "one": F(1),
    "half": F(0.5),
    "k": F(0.044715),
    "r": F(ROOT_OF_2_OVER_PI),
    "three": F(3),
}


def test_gelu_in_every_order(each, tmp_path):
    """After a sum that is merged into another, on tokens: the product is 1.13, and no square."""
    tails = [
        [("Mul", ["h", "c"], "d", {}), ("Mul", ["d", "half"], "y", {})],
        [("Mul", ["h", "half"], "d", {}), ("Mul", ["d", "c"], "y", {})],
        [("Mul", ["c", "half"], "d", {}), ("Mul", ["h", "d"], "y", {})],
    ]
    for tail in each(tails):
        nodes = [("Add", ["x", "bias"], "h", {}), *GELU, *tail]
        constants = {"bias": draw(4), "root": F(math.sqrt(2)), "one": F(1), "half": F(0.5)}
        path = written(tmp_path / "net.onnx", nodes, (1, 3, 4), constants)
        assert checked(path, (1, 3, 4)) == pytest.approx(1.1289, abs=1e-3)


def test_approximate_gelu_in_every_order(each, tmp_path):
    cubes = [
        [("Pow", ["x", "three"], "p", {}), ("Mul", ["p", "k"], "q", {})],
        [("Mul", ["x", "x"], "o", {}), ("Mul", ["x", "o"], "p", {}), ("Mul", ["k", "p"], "q", {})],
        [("Mul", ["k", "x"], "o", {}), ("Mul", ["x", "o"], "p", {}), ("Mul", ["x", "p"], "q", {})],
    ]
    for cube in each(cubes):
        nodes = [
            *cube,
            ("Add", ["x", "q"], "s", {}),
            ("Mul", ["s", "r"], "t", {}),
            ("Tanh", ["t"], "u", {}),
            ("Add", ["one", "u"], "v", {}),
            ("Mul", ["half", "v"], "w", {}),
            ("Mul", ["x", "w"], "y", {}),
        ]
        path = written(tmp_path / "net.onnx", nodes, (1, 5), TANH_GELU)
        assert checked(path, (1, 5)) == pytest.approx(1.1289, abs=2e-3)


def test_hardswish_of_other_tools(each, tmp_path):
    """Slopes up to 3 / 2, through a clamp or a HardSigmoid, after a shift."""
    clamp = [
        ("Add", ["h", "three"], "a", {}),
        ("Clip", ["a", "zero", "six"], "b", {}),
        ("Mul", ["h", "b"], "c", {}),
        ("Div", ["c", "six"], "y", {}),
    ]
    sigmoid = [
        ("HardSigmoid", ["h"], "a", {"alpha": 1 / 6, "beta": 0.5}),
        ("Mul", ["a", "h"], "y", {}),
    ]
    for tail in each([clamp, sigmoid]):
        nodes = [("Add", ["x", "bias"], "h", {}), *tail]
        constants = {"bias": draw(4), "three": F(3), "zero": F(0), "six": F(6)}
        path = written(tmp_path / "net.onnx", nodes, (1, 4), constants)
        assert checked(path, (1, 4)) == pytest.approx(1.5, rel=1e-6)


def test_layer_normalisation_in_small_operators(each, tmp_path):
    """As exporters wrote it before version 17; Product counts the subtracted mean once more."""
    for epsilon in each((1e-5, 0.1)):
        nodes = [
            ("ReduceMean", ["x"], "m", {"axes": [-1]}),
            ("Sub", ["x", "m"], "c", {}),
            ("Pow", ["c", "two"], "s", {}),
            ("ReduceMean", ["s"], "v", {"axes": [-1]}),
            ("Add", ["v", "eps"], "e", {}),
            ("Sqrt", ["e"], "r", {}),
            ("Div", ["c", "r"], "n", {}),
            ("Mul", ["n", "g"], "z", {}),
            ("Add", ["z", "b"], "y", {}),
        ]
        gain = draw(6)
        constants = {"two": F(2), "eps": F(epsilon), "g": gain, "b": draw(6)}
        path = written(tmp_path / "net.onnx", nodes, (1, 2, 6), constants, version=13)
        bound = checked(path, (1, 2, 6))
        assert bound <= 1.01 * abs(gain).max() / math.sqrt(epsilon)


def test_a_normalisation_attains_its_constant(tmp_path):
    """|diag(gamma) P| / sqrt(epsilon), where all numbers are equal."""
    gain, epsilon = draw(6), 0.01
    nodes = [("LayerNormalization", ["x", "g"], "y", {"epsilon": epsilon})]
    path = written(tmp_path / "net.onnx", nodes, (1, 6), {"g": gain})
    chain = read_onnx(path).exact()
    at = torch.full((1, 6), 0.3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(chain.forward, at).reshape(6, 6)
    projection = torch.eye(6) - 1 / 6
    exact = torch.from_numpy(gain).float().double().diag() @ projection.double()
    constant = torch.linalg.matrix_norm(exact, 2) / math.sqrt(epsilon)
    assert torch.linalg.matrix_norm(jacobian, 2) == pytest.approx(float(constant), rel=1e-6)
    assert naive(chain) >= float(constant) * (1 - 1e-9)


def test_lengths_of_complex_numbers(tmp_path):
    """The modulus of a Fourier transform, 1-Lipschitz in both parts together."""
    nodes = [
        ("Split", ["x", "sizes"], "re", {"axis": 1}),
        ("Pow", ["re", "two"], "a", {}),
        ("Pow", ["im", "two"], "b", {}),
        ("Add", ["a", "b"], "s", {}),
        ("Sqrt", ["s"], "y", {}),
    ]
    made = [helper.make_node(kind, ins, [out], **more) for kind, ins, out, more in nodes]
    made[0].output.append("im")
    constants = {"sizes": numbers(3, 3), "two": np.float32(2)}
    path = save(tmp_path / "net.onnx", made, (1, 6), constants, kind=1)
    assert checked(path, (1, 6)) == pytest.approx(1.0, rel=1e-9)


def test_attention_after_a_normalisation(tmp_path):
    """Its factors are bounded; without the normalisation it is refused, and says why."""
    heads = [
        ("MatMul", ["n", "q"], "Q", {}),
        ("MatMul", ["n", "k"], "K", {}),
        ("MatMul", ["n", "v"], "V", {}),
        ("Transpose", ["K"], "T", {"perm": [0, 2, 1]}),
        ("MatMul", ["Q", "T"], "S", {}),
        ("Softmax", ["S"], "P", {}),
        ("MatMul", ["P", "V"], "y", {}),
    ]
    constants = {"q": draw(4, 2), "k": draw(4, 2) / 2, "v": draw(4, 3), "g": np.ones(4)}
    norm = ("LayerNormalization", ["x", "g"], "n", {"epsilon": 0.5})
    path = written(tmp_path / "net.onnx", [norm, *heads], (1, 3, 4), constants)
    checked(path, (1, 3, 4))
    path = written(tmp_path / "net.onnx", [("Relu", ["x"], "n", {}), *heads], (1, 3, 4), constants)
    with pytest.raises(UnboundedModuleError, match=r"no global Lipschitz constant.*A local bound"):
        read_onnx(path)


def test_gates_of_bounded_values(tmp_path):
    """A cell of an LSTM that another tool wrote out, from a fixed state."""
    nodes = [
        ("Gemm", ["x", "w", "b"], "a", {}),
        ("Split", ["a", "sizes"], "i", {"axis": 1}),
        *[("Sigmoid", [g], f"s{g}", {}) for g in "iof"],
        ("Tanh", ["g"], "t", {}),
        ("Mul", ["si", "t"], "it", {}),
        ("Mul", ["sf", "state"], "fc", {}),
        ("Add", ["it", "fc"], "c", {}),
        ("Tanh", ["c"], "tc", {}),
        ("Mul", ["so", "tc"], "y", {}),
    ]
    made = [helper.make_node(kind, ins, [out], **more) for kind, ins, out, more in nodes]
    made[1].output.extend(["o", "f", "g"])
    constants = {"w": draw(4, 8), "b": draw(8), "state": draw(2)}
    stored = {n: in_single(v) for n, v in constants.items()} | {"sizes": numbers(2, 2, 2, 2)}
    path = save(tmp_path / "net.onnx", made, (1, 4), stored, kind=1)
    checked(path, (1, 4))


def test_squeeze_and_excite_has_none(tmp_path):
    nodes = [
        ("GlobalAveragePool", ["x"], "m", {}),
        ("Sigmoid", ["m"], "g", {}),
        ("Mul", ["x", "g"], "y", {}),
    ]
    path = written(tmp_path / "net.onnx", nodes, (1, 2, 3, 3), {})
    with pytest.raises(UnboundedModuleError, match=r"node .*\(Mul\): a product .* A local bound"):
        read_onnx(path)


def test_the_layout_of_keras(tmp_path):
    """NHWC: a transpose before each convolution and after it, BiasAdd, a mean over pixels."""
    to_first, to_last = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
    nodes = [
        ("Transpose", ["x"], "a", to_first),
        ("Conv", ["a", "k1"], "b", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ("Transpose", ["b"], "c", to_last),
        ("Add", ["c", "b1"], "d", {}),
        ("Relu", ["d"], "e", {}),
        ("Transpose", ["e"], "f", to_first),
        ("MaxPool", ["f"], "g", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Transpose", ["g"], "h", to_last),
        ("Mul", ["h", "gamma"], "i", {}),
        ("Add", ["i", "beta"], "j", {}),
        ("ReduceMean", ["j"], "l", {"axes": [1, 2], "keepdims": 0}),
        ("MatMul", ["l", "w"], "m", {}),
        ("Add", ["m", "b2"], "n", {}),
        ("Softmax", ["n"], "y", {}),
    ]
    constants = {
        "k1": draw(4, 3, 3, 3),
        "b1": draw(4),
        "gamma": draw(4),
        "beta": draw(4),
        "w": draw(4, 5),
        "b2": draw(5),
    }
    path = written(tmp_path / "net.onnx", nodes, ("n", 9, 8, 3), constants, version=13)
    checked(path, (1, 9, 8, 3))


def test_a_variance_without_deviations(tmp_path):
    """The mean of squares less the square of the mean, of the same numbers and no others."""

    def nodes(mean_of: str):
        return [
            ("Neg", ["x"], "n", {}),
            ("Mul", ["x", "x"], "s", {}),
            ("ReduceMean", ["s"], "a", {"axes": [-1]}),
            ("ReduceMean", [mean_of], "m", {"axes": [-1]}),
            ("Mul", ["m", "m"], "b", {}),
            ("Sub", ["a", "b"], "v", {}),
            ("Add", ["v", "e"], "ve", {}),
            ("Sqrt", ["ve"], "r", {}),
            ("Sub", ["x", "m"], "d", {}),
            ("Div", ["d", "r"], "y", {}),
        ]

    constants = {"e": F(0.25)}
    path = written(tmp_path / "net.onnx", nodes("x"), (1, 4), constants, version=13)
    assert checked(path, (1, 4)) == pytest.approx(2)
    other = written(tmp_path / "other.onnx", nodes("n"), (1, 4), constants, version=13)
    with pytest.raises(UnboundedModuleError, match="a difference of squares is not known"):
        read_onnx(other)


def test_softsign_as_a_quotient(tmp_path):
    nodes = [
        ("Abs", ["x"], "a", {}),
        ("Add", ["one", "a"], "b", {}),
        ("Div", ["x", "b"], "y", {}),
    ]
    path = written(tmp_path / "net.onnx", nodes, (1, 4), {"one": F(1)})
    assert checked(path, (1, 4)) == 1


def test_logarithms_of_spectra(each, tmp_path):
    """``log(x^2 + eps)`` and ``log(max(x^2, eps))``, attained by one number."""
    for tail, constant in each(
        [
            ([("Add", ["s", "eps"], "e", {}), ("Log", ["e"], "y", {})], 1 / 0.5),
            ([("Max", ["eps", "s"], "e", {}), ("Log", ["e"], "y", {})], 2 / 0.5),
        ]
    ):
        nodes = [
            ("Mul", ["x", "x"], "p", {}),
            ("Sqrt", ["p"], "r", {}),
            ("Pow", ["r", "two"], "s", {}),
            *tail,
        ]
        path = written(tmp_path / "net.onnx", nodes, (1, 2), {"two": F(2), "eps": F(0.25)})
        assert checked(path, (1, 2)) == pytest.approx(constant, rel=1e-9)
        chain = read_onnx(path).exact()
        at = torch.tensor([[0.5 + 1e-9, 0.0]], dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(chain.forward, at)
        assert float(jacobian.max()) == pytest.approx(constant, rel=1e-6)
