"""Linear parts in float64: their values, their rounding, their files."""

import copy

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.certificates.forward_error import forward_error
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.layers import Accumulated


def network(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(0)
    if kind == "dense":
        parts = [nn.Flatten(), layers.CholeskyLinear(64, 48), layers.MaxMin()]
        return nn.Sequential(*parts, layers.UnitNormLinear(48, 5)), (1, 8, 8)
    if kind == "mlp":
        parts = [nn.Flatten(), layers.CholeskyLinear(64, 24), layers.MaxMin()]
        return nn.Sequential(*parts, layers.MLPHead(24, 5, hidden=30)), (1, 8, 8)
    if kind == "convolutions":
        parts = [layers.BCOPConv2d(1, 8, 3), layers.MaxMin(), layers.SOCConv2d(8, 8, 3, stride=2)]
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(128, 5)), (1, 8, 8)
    parts = [layers.ConvexPotentialConv2d(1, 4, 3, image_size=8), nn.Flatten()]
    parts += [layers.ConvexPotentialLinear(64, 20), layers.SandwichLinear(64, 16)]
    return nn.Sequential(*parts, nn.Sequential(layers.UnitNormLinear(16, 5))), (1, 8, 8)


KINDS = ("dense", "mlp", "convolutions", "convex")


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_only_results_are_rounded(kind):
    """Within a few units of float64, of float32 in and out; the price in radius is gone."""
    model, shape = network(kind)
    plain, fine = onelip.export(model), onelip.export(model, accumulate=torch.float64)
    x = torch.rand(20, *shape)
    exact = copy.deepcopy(plain).double()(x.double())
    assert fine(x).dtype == torch.float32
    assert {n.dtype for n in fine.parameters()} == {torch.float32}
    bounds = [float(forward_error(net, shape, 8.0)) for net in (plain, fine)]
    assert bounds[1] < bounds[0] / (4 if kind == "mlp" else 20)  # Softplus stays in float32
    assert float((fine(x).double() - exact).norm(dim=1).max()) <= bounds[1]
    method = "curvature" if kind == "mlp" else "product"
    real, lost = (
        onelip.certify(fine, x, method=method, level=level) for level in ("real", "float")
    )
    coarse = onelip.certify(plain, x, method=method, level="float")
    assert real.head == onelip.certify(plain, x, method=method).head
    assert bool((lost.radius <= real.radius).all())
    assert bool((lost.radius >= real.radius - 1e-4).all())
    assert float(lost.radius.sum()) > float(coarse.radius.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_of_every_method_are_those_of_the_network(kind):
    model, shape = network(kind)
    plain, fine = onelip.export(model), onelip.export(model, accumulate=torch.float64)
    for method in ("product", "liplt"):
        found = [float(onelip.lipschitz_bound(net, shape, method=method)) for net in (plain, fine)]
        assert found[1] == pytest.approx(found[0], rel=1e-12)
    assert float(onelip.lipschitz_bound(fine)) == pytest.approx(
        float(onelip.lipschitz_bound(plain))
    )


def test_the_order_of_the_columns_does_not_show():
    """Of 512 products: float32 differs in most outputs, float64 accumulation in next to none."""
    torch.manual_seed(0)
    layer, x, order = (
        nn.Linear(512, 300).requires_grad_(False),
        torch.rand(50, 512),
        torch.randperm(512),
    )
    other = copy.deepcopy(layer)
    other.weight.copy_(layer.weight[:, order])
    plain = (layer(x) != other(x[:, order])).float().mean()
    fine = (Accumulated(layer)(x) != Accumulated(other)(x[:, order])).float().mean()
    assert float(plain) > 0.3
    assert float(fine) < 1e-3


@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
@pytest.mark.parametrize("kind", ["dense", "convolutions"])
def test_files_state_the_casts(kind, suffix, tmp_path):
    model, shape = network(kind)
    fine = onelip.export(model, accumulate=torch.float64)
    if suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    file, x = tmp_path / f"network{suffix}", torch.rand(3, *shape)
    bound = onelip.save(fine, file, shape)
    assert float(bound) == pytest.approx(float(onelip.lipschitz_bound(fine)), rel=1e-6)
    if suffix == ".onnx" and kind == "convolutions":  # onnxruntime has none in float64
        with pytest.raises(UsageError, match=r"onnxruntime does not run.*Conv"):
            onelip.certify(file, x)
    else:
        radius = onelip.certify(file, x).radius
        torch.testing.assert_close(radius, onelip.certify(fine, x).radius, rtol=1e-5, atol=1e-6)
    if suffix == ".onnx":
        names = [node.op_type for node in onnx.load(file).graph.node]
        assert names.count("Cast") >= 4
    else:
        program = torch.export.load(file)
        targets = [str(node.target) for node in program.graph.nodes]
        assert sum("to" in name for name in targets) >= 4
        assert torch.equal(program.module()(x), fine(x))


def test_it_is_a_network_like_any_other():
    model, shape = network("dense")
    fine = onelip.export(model, accumulate=torch.float64)
    x = torch.rand(4, *shape)
    double = copy.deepcopy(fine).double()
    torch.testing.assert_close(double(x.double()), fine(x).double(), rtol=1e-5, atol=1e-6)
    assert double(x.double()).dtype == torch.float64
    assert torch.equal(copy.deepcopy(double).float()(x), fine(x))
    assert torch.equal(onelip.export(fine)(x), fine(x))
    again = onelip.export(fine, accumulate=torch.float64)  # nothing is wrapped twice
    assert [type(p) for p in again] == [type(p) for p in fine]
    certificate = onelip.certify(double, x.double(), level="float")
    assert bool((certificate.radius <= onelip.certify(double, x.double()).radius).all())


def test_other_processors(monkeypatch):
    """In float32 a convolution may be Winograd's there; in float64 it is not."""
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    conv = nn.Conv2d(1, 2, 3).requires_grad_(False)
    with pytest.raises(UnboundedModuleError, match="arm64"):
        forward_error(nn.Sequential(conv), (1, 4, 4), 1.0)
    assert float(forward_error(nn.Sequential(Accumulated(conv)), (1, 4, 4), 1.0)) < 1e-5


def test_storing_the_result_counts():
    """Of a part without sums: what is seen is the rounding of the result, which is charged."""
    layer = nn.Linear(1, 1, bias=False).requires_grad_(False)
    layer.weight.fill_(1 + 2.0**-23)
    model, x = nn.Sequential(Accumulated(layer)), torch.rand(1000, 1)
    error = float((model(x).double() - layer.weight.double() * x.double()).abs().max())
    assert 2.0**-26 < error <= float(forward_error(model, (1,), 1.0)) < 2.0**-22


def test_overflow_of_the_result():
    layer = nn.Linear(2, 1, bias=False).requires_grad_(False)
    layer.weight.fill_(3e38)
    with pytest.raises(NonFiniteError, match="may overflow"):
        forward_error(nn.Sequential(Accumulated(layer)), (2,), 1.0)


def test_what_is_refused():
    with pytest.raises(TypeError, match="ReLU has no long sums"):
        Accumulated(nn.ReLU())
    with pytest.raises(UsageError, match=r"accumulated in torch\.float64, not in torch\.float32"):
        onelip.export(nn.Sequential(nn.Linear(2, 2)), accumulate=torch.float32)

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def forward(self, x):
            return self.inner(x) + 1

    with pytest.raises(UsageError, match="Own may use its layers in any way"):
        onelip.export(Own(), accumulate=torch.float64)
