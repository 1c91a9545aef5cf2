"""Inputs, outputs and sizes that are chosen by name, in Python and on the command line."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onelip.cli import main
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading import load, read_onnx
from tests.reading.onnx.files import draw, in_single, save


def info(name: str, shape: tuple | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def file(path: Path, nodes: list, inputs: list, outputs: list[str], constants: dict) -> Path:
    made = [helper.make_node(kind, ins, outs, **more) for kind, ins, outs, more in nodes]
    stored = [numpy_helper.from_array(in_single(a), name) for name, a in constants.items()]
    graph = helper.make_graph(made, "net", inputs, [info(o, None) for o in outputs], stored)
    imports = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


def two_of_each(path: Path) -> Path:
    """``a + W b`` and the product of both."""
    nodes = [
        ("MatMul", ["b", "w"], ["h"], {}),
        ("Add", ["a", "h"], ["sum"], {}),
        ("Mul", ["a", "h"], ["product"], {}),
    ]
    inputs = [info("a", (1, 3)), info("b", (1, 4))]
    return file(path, nodes, inputs, ["sum", "product"], {"w": draw(4, 3)})


def test_one_of_several_inputs_and_outputs(tmp_path):
    path = two_of_each(tmp_path / "net.onnx")
    for message, options in (
        ("has 2 outputs: .*--output.* 'sum', 'product'", {}),
        ("has 2 inputs, 'a', 'b'", {"output": "sum"}),
        ("needs 'b' besides 'a'", {"output": "sum", "input": "a"}),
        ("no output 'c'", {"output": "c"}),
        ("no input 'c'", {"output": "sum", "input": "c"}),
        ("no input 'z'", {"output": "sum", "input": "a", "fixed": {"z": 0}}),
    ):
        with pytest.raises(UsageError, match=message):
            read_onnx(path, **options)
    given = draw(1, 4).astype(np.float32)
    chain = load(path, output="product", input="a", fixed={"b": given})
    x = torch.randn(2, 3)
    session = onnxruntime.InferenceSession(path)
    rows = [session.run(["product"], {"a": r[None].numpy(), "b": given})[0] for r in x]
    torch.testing.assert_close(chain.forward(x), torch.from_numpy(np.concatenate(rows)))
    assert load(path, output="product", input="b", fixed={"a": 2}).inputs == (4,)
    assert load(path, output="sum", input="h", fixed={"a": 2}).inputs == (3,)
    with pytest.raises(UsageError, match=r"an array of shape \(2, 5\): the file wants \[1, 4\]"):
        load(path, output="sum", input="a", fixed={"b": draw(2, 5)})


def test_an_input_that_is_not_needed(tmp_path):
    nodes = [("Relu", ["a"], ["y"], {}), ("Relu", ["b"], ["z"], {})]
    path = file(tmp_path / "net.onnx", nodes, [info("a", (1, 3)), info("b", (2,))], ["y"], {})
    assert read_onnx(path).inputs == (3,)


def test_open_dimensions_by_name(tmp_path):
    nodes = [("GlobalAveragePool", ["x"], ["y"], {})]
    inputs = [info("x", ("batch", 2, "height", None))]
    path = file(tmp_path / "net.onnx", nodes, inputs, ["y"], {})
    with pytest.raises(UsageError, match=r"dimension 2 with shapes={'height': ...}, or --shape"):
        read_onnx(path)
    with pytest.raises(UsageError, match=r"'x.3'"):
        read_onnx(path, shapes={"height": 4})
    with pytest.raises(UsageError, match=r"no open dimension 'width'; it has batch, height, x.3"):
        read_onnx(path, shapes={"width": 4})
    with pytest.raises(UsageError, match="at least 1"):
        read_onnx(path, shapes={"height": 0})
    chain = read_onnx(path, shapes={"height": 4, "x.3": 5})
    assert (chain.inputs, chain.outputs) == ((2, 4, 5), (2, 1, 1))


def test_a_fixed_batch(tmp_path):
    """The chain of one input where all are treated alike; of all where they are not."""
    relu = helper.make_node("Relu", ["x"], ["y"])
    assert read_onnx(save(tmp_path / "a.onnx", [relu], (8, 3), {})).inputs == (3,)
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[0])
    path = save(tmp_path / "b.onnx", [mean], (8, 3), {}, version=13)
    assert read_onnx(path).inputs == (8, 3)
    add = helper.make_node("Add", ["x", "b"], ["y"])
    assert read_onnx(save(tmp_path / "c.onnx", [add], (2, 3), {"b": draw(2, 3)})).inputs == (2, 3)
    assert read_onnx(save(tmp_path / "d.onnx", [add], (2, 3), {"b": draw(1, 3)})).inputs == (3,)
    assert read_onnx(save(tmp_path / "e.onnx", [relu], (5,), {})).inputs == (5,)


def test_an_input_of_whole_numbers(tmp_path):
    """From the table on; the number of tokens is that of the file."""
    nodes = [
        ("Gather", ["table", "ids"], ["e"], {}),
        ("ReduceMean", ["e"], ["m"], {"axes": [1], "keepdims": 0}),
        ("MatMul", ["m", "w"], ["y"], {}),
    ]
    inputs = [info("ids", ("n", "tokens"), TensorProto.INT64)]
    tables = {"table": draw(7, 4), "w": draw(4, 2)}
    path = file(tmp_path / "net.onnx", nodes, inputs, ["y"], tables)
    chain = read_onnx(path, shapes={"tokens": 5})
    assert chain.inputs == (5, 4)
    ids = torch.tensor([[3, 0, 6, 6, 1]])
    (expected,) = onnxruntime.InferenceSession(path).run(None, {"ids": ids.numpy()})
    embedded = torch.from_numpy(tables["table"]).float()[ids]
    torch.testing.assert_close(chain.forward(embedded), torch.from_numpy(expected))
    nodes[0] = ("Cast", ["ids"], ["e"], {"to": TensorProto.FLOAT})
    path = file(tmp_path / "cast.onnx", nodes[:1], inputs, ["e"], {})
    with pytest.raises(UsageError, match=r"whole numbers, which have no Lipschitz constant: .*'e'"):
        read_onnx(path, shapes={"tokens": 5})


def test_half_precision_is_read_exactly(tmp_path):
    weight = draw(4, 3).astype(np.float16)
    nodes = [
        ("Cast", ["x"], ["h"], {"to": TensorProto.FLOAT16}),
        ("MatMul", ["h", "w"], ["m"], {}),
        ("Relu", ["m"], ["r"], {}),
        ("Cast", ["r"], ["y"], {"to": TensorProto.FLOAT}),
    ]
    path = file(tmp_path / "net.onnx", nodes, [info("x", (1, 4))], ["y"], {"w": weight})
    chain = read_onnx(path)
    exact = torch.from_numpy(weight.astype(np.float64)).T
    assert torch.equal(chain.exact().blocks[0].inner.weight, exact)
    path = file(
        tmp_path / "all.onnx", nodes[1:3], [info("h", (1, 4), TensorProto.FLOAT16)], ["r"],
        {"w": weight},
    )  # fmt: skip
    assert torch.equal(read_onnx(path).forward(torch.ones(1, 4)), chain.forward(torch.ones(1, 4)))


def test_a_constant_branch(tmp_path):
    """Only the branch that a fixed input chooses is read; a branch by the input is refused."""
    then = helper.make_graph([helper.make_node("Relu", ["x"], ["p"])], "t", [], [info("p", None)])
    other = helper.make_graph([helper.make_node("Exp", ["x"], ["q"])], "e", [], [info("q", None)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)
    inputs = [info("x", (1, 3)), info("c", (), TensorProto.BOOL)]
    graph = helper.make_graph([node], "net", inputs, [info("y", None)])
    imports = [helper.make_opsetid("", 17)]
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    assert len(read_onnx(path, input="x", fixed={"c": True}).blocks) == 1
    with pytest.raises(UnboundedModuleError, match="Exp has no global"):
        read_onnx(path, input="x", fixed={"c": False})


@pytest.mark.usefixtures("clock")
def test_the_command_line(tmp_path, capsys):
    path = two_of_each(tmp_path / "net.onnx")
    np.save(tmp_path / "b.npy", draw(1, 4))
    call = ["bound", str(path), "--seconds", "3", "--json", "--output", "sum", "--input", "a"]
    assert main([*call, "--fixed", f"b={tmp_path / 'b.npy'}"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] == pytest.approx(1.0)
    for arguments, message in (
        (["--fixed", "b"], "--fixed takes name=value"),
        (["--fixed", "b=x"], "a number or a .npy file"),
        (["--fixed", "b=x.npy"], "x.npy cannot be read"),
        (["--shape", "n=x"], "the size of n is a whole number"),
        (["--shape", "n=4"], "no open dimension 'n'; it has none"),
        ([], "fix the other inputs"),
    ):
        assert main([*call, *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
