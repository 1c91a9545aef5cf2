"""ONNX files against onnxruntime."""

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
from onnx import TensorProto, helper
from torch import Tensor, nn

from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading import load, read_onnx
from tests.reading.checks import naive, opaque, steepest
from tests.reading.networks import NETWORKS, SHAPE, build
from tests.reading.onnx.files import constant, draw, save

pytestmark = pytest.mark.usefixtures("onnx_registry_once")


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


def test_an_operator_of_someone_else(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], domain="mine", name="own")
    path = save(tmp_path / "net.onnx", [node], (1, 4), {})
    with pytest.raises(UnboundedModuleError, match=r"node 'own' \(Relu\)"):
        read_onnx(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, "n"), "only the batch .*'n'.* --shape n="), (("b", None), r"--shape x.1=")],
)
def test_inputs(shape: tuple, message: str, tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], shape, {})
    with pytest.raises(UsageError, match=message):
        read_onnx(path)


def test_networks_that_are_none(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", [constant("y", draw(1, 2))], (1, 2), {})
    with pytest.raises(UsageError, match="does not depend on the input"):
        read_onnx(path)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.DOUBLE, (1, 2)))
    onnx.save(model, path)
    with pytest.raises(UsageError, match="does not depend on the input"):
        read_onnx(path)
    path = save(tmp_path / "b.onnx", [helper.make_node("Relu", ["w"], ["y"])], (1, 2), {})
    with pytest.raises(UsageError, match="'w' is not computed before"):
        read_onnx(path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"onelip\[onnx\]"):
        read_onnx(tmp_path / "net.onnx")
