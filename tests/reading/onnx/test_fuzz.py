"""Random graphs: values of onnxruntime, bounds above Jacobians, and one line for all else."""

import random
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper

from onelip.chains import Chain
from onelip.errors import OnelipError
from onelip.reading import read_onnx
from tests.reading.checks import naive, steepest
from tests.reading.onnx.files import run

GRAPHS, DAMAGED = 80, 80
UNARY = (
    "Relu", "Sigmoid", "Tanh", "Softmax", "LogSoftmax", "Abs", "Neg", "Sin", "Cos", "Erf", "Elu",
    "HardSwish", "HardSigmoid", "Softplus", "Identity", "Softsign", "Exp", "Sqrt", "Sign",
    "Flatten",
)  # fmt: skip
BINARY = ("Add", "Sub", "Mul", "Max", "Min", "Div")


class Drawn:
    """A random graph of some operators on tensors of small shapes."""

    def __init__(self, seed: int) -> None:
        self.random, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.shape = tuple(
            self.random.choice((1, 2, 3)) for _ in range(self.random.choice((2, 3, 4)))
        )
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, np.ndarray] = {}
        self.shapes = {"x": self.shape}

    def constant(self, *shape: int) -> str:
        name = f"c{len(self.stored)}"
        self.stored[name] = self.numbers.normal(size=shape).astype(np.float32)
        return name

    def whole(self, *numbers: int) -> str:
        name = f"c{len(self.stored)}"
        self.stored[name] = np.array(numbers, dtype=np.int64)
        return name

    def put(self, kind: str, inputs: list[str], **attributes) -> None:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))

    def step(self) -> None:
        """One more operator on one of the last tensors."""
        value = self.random.choice([*self.shapes][-3:])
        shape = self.shapes[value]
        if not shape:
            self.put(self.random.choice(UNARY[:9]), [value])
            return
        axis = self.random.randrange(len(shape))
        spread = [self.random.choice((1, n)) for n in shape[self.random.randrange(len(shape)) :]]
        kind = self.random.choice(
            ["unary"] * 4 + ["binary"] * 3 + ["matmul"] * 2
            + ["transpose", "reduce", "pad", "gather", "concat", "norm", "conv", "reshape", "slice"]
        )  # fmt: skip
        if kind == "unary":
            self.put(self.random.choice(UNARY), [value])
        elif kind == "binary":
            other = self.random.choice([self.constant(*spread), self.random.choice([*self.shapes])])
            self.put(self.random.choice(BINARY), self.random.sample([value, other], 2))
        elif kind == "matmul":
            self.put("MatMul", [value, self.constant(shape[-1], self.random.choice((1, 2, 4)))])
        elif kind == "transpose":
            self.put("Transpose", [value], perm=self.random.sample(range(len(shape)), len(shape)))
        elif kind == "reduce":
            name = self.random.choice(("ReduceMean", "ReduceMax", "ReduceL2"))
            self.put(name, [value], axes=[axis], keepdims=self.random.choice((0, 1)))
        elif kind == "pad":
            pads = self.whole(*(self.random.choice((0, 1)) for _ in range(2 * len(shape))))
            self.put("Pad", [value, pads], mode=self.random.choice(("constant", "edge")))
        elif kind == "gather":
            places = [self.random.randrange(shape[axis]) for _ in range(self.random.choice((1, 3)))]
            self.put("Gather", [value, self.whole(*places)], axis=axis)
        elif kind == "concat":
            self.put(
                "Concat", [value, self.random.choice([value, self.constant(*shape)])], axis=axis
            )
        elif kind == "norm":
            self.put("LayerNormalization", [value, self.constant(shape[-1])], epsilon=0.1)
        elif kind == "conv" and len(shape) > 2:
            kernel = self.constant(2, shape[1], *(1,) * (len(shape) - 2))
            self.put("Conv", [value, kernel])
        elif kind == "reshape":
            self.put("Reshape", [value, self.whole(*self.random.choice(([-1], [0, -1], [1, -1])))])
        else:
            size = self.whole(self.random.choice((1, -1)))
            self.put("Slice", [value, self.whole(0), size, self.whole(axis)])

    def save(self, path: Path) -> bool:
        """Write the file; whether onnxruntime takes it, after which shapes are known."""
        x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, self.shape)
        last = self.nodes[-1].output[0] if self.nodes else "x"
        y = helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None)
        stored = [numpy_helper.from_array(a, n) for n, a in self.stored.items()]
        graph = helper.make_graph(self.nodes, "net", [x], [y], stored)
        imports = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
        try:
            found = run(path, torch.zeros(1, *self.shape))[0]
        except Exception:
            self.nodes.pop()
            return False
        self.shapes[last] = tuple(found.shape)
        return 0 < found.numel() <= 64


def drawn(seed: int, path: Path) -> Drawn | None:
    """A graph that onnxruntime runs; None where its last tensor is empty or large."""
    graph = Drawn(seed)
    for _ in range(graph.random.choice((2, 4, 6))):
        graph.step()
        if not graph.save(path) and graph.nodes and graph.nodes[-1].output[0] in graph.shapes:
            return None
    return graph if graph.nodes and graph.save(path) else None


def attempted(path: Path) -> Chain | str:
    """The chain, or why there is none."""
    try:
        return read_onnx(path)
    except OnelipError as error:
        return str(error)


def test_random_graphs(tmp_path: Path) -> None:
    onnxruntime.set_default_logger_severity(4)
    read = refused = 0
    for seed in range(GRAPHS):
        torch.manual_seed(seed)
        path = tmp_path / "net.onnx"
        graph = drawn(seed, path)
        if graph is None:
            continue
        chain = attempted(path)
        if isinstance(chain, str):
            assert "\n" not in chain
            assert "cannot be read:" not in chain, seed
            refused += 1
            continue
        read += 1
        for scale in (0.3, 3.0):
            x = scale * torch.randn(2, *graph.shape)
            found = chain.forward(x.reshape(-1, *chain.inputs)).flatten()
            expected = run(path, x).flatten()
            assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4), seed
        exact = chain.exact()
        assert naive(exact) >= steepest(exact.forward, chain.inputs) * (1 - 1e-7), seed
    assert read > GRAPHS // 3
    assert refused


def test_damaged_files(tmp_path: Path) -> None:
    """Bytes, attributes, names and shapes that were changed: one line each."""
    onnxruntime.set_default_logger_severity(4)
    path, broken = tmp_path / "net.onnx", tmp_path / "broken.onnx"
    for seed in range(DAMAGED):
        graph = drawn(seed, path)
        if graph is None:
            continue
        rng = random.Random(seed)
        model = onnx.load(path)
        node = rng.choice(list(model.graph.node))
        way = rng.randrange(6)
        if way == 0:
            node.input[rng.randrange(len(node.input))] = rng.choice(("", "x", "nothing"))
        elif way == 1:
            node.op_type = rng.choice(
                ("Relu", "Conv", "Gather", "LSTM", "Resize", "If", "Loop", "Pad")
            )
        elif way == 2 and node.attribute:
            del node.attribute[0]
        elif way == 3 and model.graph.initializer:
            part = rng.choice(list(model.graph.initializer))
            part.dims.append(rng.choice((0, 1, 7, -1)))
        elif way == 4:
            node.attribute.append(helper.make_attribute("axes", [rng.choice((-9, 0, 9))]))
        data = bytearray(model.SerializeToString())
        if way == 5:
            for _ in range(3):
                data[rng.randrange(len(data))] = rng.randrange(256)
        broken.write_bytes(bytes(data))
        found = attempted(broken)
        assert isinstance(found, Chain) or "\n" not in found, seed
