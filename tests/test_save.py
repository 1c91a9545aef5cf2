"""What leaves as a file is what was proved, proved again; what cannot be held leaves nothing."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import onelip
from onelip import layers, models
from onelip.bounds import LipLT, Product
from onelip.errors import UsageError
from onelip.layers import Householder, MaxMin
from onelip.reading import load, read

pytestmark = pytest.mark.usefixtures("onnx_registry_once")

NETWORKS = {
    "convex_potential": (
        lambda: models.cpl_digits(
            (1, 8, 8), 10, conv_layers=2, channels=4, linear_layers=1, features=16
        ),
        (1, 8, 8),
    ),
    "sorting": (
        lambda: nn.Sequential(
            layers.BCOPConv2d(1, 4, 3),
            MaxMin(),
            layers.AOCConv2d(4, 8, 3, stride=2),
            Householder(8),
            layers.ScaledAvgPool2d(2),
            nn.Flatten(),
            layers.UnitNormLinear(32, 3),
        ),
        (1, 8, 8),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize(("build", "shape"), NETWORKS.values(), ids=NETWORKS)
def test_the_file_is_what_was_proved(build, shape, suffix, tmp_path):
    model, path = build().eval(), tmp_path / f"network{suffix}"
    bound = onelip.save(model, path, shape)
    own = read(onelip.export(model), shape)
    assert float(bound) == pytest.approx(float(Product().bound(own)), rel=1e-6)
    assert float(Product().bound(load(path))) == float(bound)
    assert float(LipLT().bound(load(path))) == pytest.approx(float(LipLT().bound(own)), rel=1e-6)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix == ".onnx":
        x = torch.rand(5, *shape)
        (found,) = onnxruntime.InferenceSession(path).run(["output"], {"input": x.numpy()})
        assert np.allclose(found, onelip.export(model)(x).detach(), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("build", "shape", "reason"),
    [
        (lambda: layers.ProjectionPool2d(4), (4, 2, 2), "hypot"),
        (lambda: layers.CurvePool2d(4), (4, 2, 2), "cannot be proved"),
        (lambda: Householder(4, order=2), (4, 2, 2), "cannot be proved"),
        (lambda: layers.CayleyConv2d(2, 2, 3, image_size=4), (2, 4, 4), "cannot be proved"),
    ],
    ids=["projection", "curve", "householder-2", "fourier"],
)
def test_what_onnx_cannot_hold(build, shape, reason, tmp_path):
    """The reason, the way out, and no file; the way out works."""
    model, path = nn.Sequential(build()).eval(), tmp_path / "network.onnx"
    with pytest.raises(UsageError) as refusal:
        onelip.save(model, path, shape)
    assert reason in str(refusal.value)
    assert str(refusal.value).endswith(": save it as .pt2")
    assert not [*tmp_path.iterdir()]
    assert float(onelip.save(model, tmp_path / "network.pt2", shape)) <= 1.00001


@pytest.mark.filterwarnings("ignore")
def test_a_refusal_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "network.onnx"
    path.write_bytes(b"before")
    with pytest.raises(UsageError):
        onelip.save(nn.Sequential(layers.CurvePool2d(4)), path, (4,))
    with pytest.raises(UsageError):
        onelip.save(nn.Sequential(nn.Linear(3, 2)), path, (4,))
    assert path.read_bytes() == b"before"
    with pytest.raises(UsageError, match=r"ends in \.pt2 or \.onnx"):
        onelip.save(nn.Linear(3, 2), tmp_path / "network.ts", (3,))


@pytest.mark.filterwarnings("ignore")
def test_float64(tmp_path):
    model = nn.Sequential(layers.BCOPConv2d(1, 2, 3), MaxMin(), nn.Flatten()).double().eval()
    onelip.save(model, tmp_path / "network.onnx", (1, 4, 4))


@pytest.mark.filterwarnings("ignore")
def test_a_divisor_is_not_lost(tmp_path):
    """Both of torch's ONNX exporters drop it, without a word."""
    pool = nn.AvgPool2d(2, stride=1, padding=1, divisor_override=3)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), pool).eval()
    x = torch.rand(2, 1, 6, 6)
    assert torch.allclose(onelip.export(model)(x), model(x), atol=1e-6)
    bound = onelip.save(model, tmp_path / "network.onnx", (1, 6, 6))
    assert float(bound) == pytest.approx(float(Product().bound(read(model, (1, 6, 6)))), rel=1e-6)
