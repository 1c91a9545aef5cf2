"""Radii inside a graph: never above the exact quotient, never above certify's, in any runtime."""

import json
import math
import subprocess
import sys
import zipfile
from fractions import Fraction

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import onelip
from onelip import _save as save_module
from onelip import certify, layers
from onelip.bounds import LipLT, Local
from onelip.certificates import HeadCurvature, WithRadius, radius_proof, with_radius
from onelip.cli import main
from onelip.errors import NotApplicableError, UnboundedModuleError, UsageError
from onelip.quiet import quiet

pytestmark = pytest.mark.usefixtures("onnx_registry_once")
SHAPE = (1, 4, 4)


def network(classes: int = 4, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Flatten(), layers.CholeskyLinear(16, 24), layers.MaxMin(), nn.Linear(24, 8)]
    return onelip.export(nn.Sequential(*body, nn.ReLU(), nn.Linear(8, classes)).to(dtype).eval())


def inputs(dtype: torch.dtype = torch.float32) -> Tensor:
    """Random ones, and some with numbers that are no pixels."""
    torch.manual_seed(1)
    x = torch.rand(40, *SHAPE).to(dtype)
    x[0, 0, 0, 0], x[1, 0, 3, 3], x[2] = math.nan, math.inf, -math.inf
    x[3], x[4] = 1e30, 3e38
    x[5] = 0
    return x


def exact_quotients(logits: Tensor, constants: Tensor) -> list[Fraction | float]:
    """Least margin over constant in rationals; 0 for what is not finite."""
    found: list[Fraction | float] = []
    for row in logits.double():
        if not row.isfinite().all():
            found.append(0)
            continue
        scores = [Fraction(v) for v in row.tolist()]
        best = scores.index(max(scores))
        table = [Fraction(c) if math.isfinite(c) else None for c in constants[best].tolist()]
        quotients = [
            (scores[best] - score) / c if c else (math.inf if scores[best] > score else 0)
            for place, (score, c) in enumerate(zip(scores, table, strict=True))
            if place != best
        ]
        found.append(min(quotients))
    return found


def assert_below(radius: Tensor, logits: Tensor, constants: Tensor) -> None:
    """Below the exact quotient by little, and above 0 wherever that is."""
    for found, exact in zip(radius.tolist(), exact_quotients(logits, constants), strict=True):
        assert found <= exact
        most = float(min(exact, Fraction(torch.finfo(torch.float64).max)))
        assert found == exact or found >= most * (1 - 1e-13) or most < 2.0**-1000


class Given(nn.Module):
    """Logits that are given: the input itself."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_close_tied_huge_and_missing_logits(dtype):
    info = torch.finfo(dtype)
    just_above_1 = 1 + info.eps
    rows = [
        [1.0, 1.0, 0.0],
        [1.0, just_above_1, just_above_1],
        [1.0, just_above_1, -1.0],
        [info.max, -info.max, 0.0],
        [info.max, info.max, 0.0],
        [info.tiny, 0.0, -info.tiny],
        [info.tiny * info.eps, 0.0, 0.0],  # the smallest number there is
        [math.nan, 0.0, 1.0],
        [0.0, 1.0, math.inf],
        [-math.inf, 0.0, 1.0],
        [-0.0, 0.0, -1.0],
        *torch.randn(200, 3).tolist(),
    ]
    logits = torch.tensor(rows, dtype=dtype)
    constants = torch.tensor([[0, 1 / 3, 0.1], [1 / 3, 0, 3e-7], [0.1, 3e-7, 0]]).double()
    basis = with_radius(network(3), SHAPE).basis
    graph = WithRadius(Given(), constants, basis, 3)
    radius = graph(logits)["radius"]
    assert_below(radius, logits, constants)
    assert radius[[0, 1, 4, 7, 8, 9, 10]].tolist() == [0] * 7
    assert bool((radius[[2, 3]] > 0).all())
    same_rows = WithRadius(Given(), torch.zeros(3, 3).double(), basis, 3)(logits)["radius"]
    assert same_rows[[0, 2]].tolist() == [0, torch.finfo(torch.float64).max]
    unknown = torch.full((3, 3), math.nan).double()
    assert not WithRadius(Given(), unknown, basis, 3)(logits)["radius"].any()


@pytest.mark.parametrize("method", ["product", LipLT()], ids=str)
@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_never_above_certify(method, classes, dtype):
    model = network(classes, dtype)
    graph = with_radius(model, SHAPE, method=method)
    x = inputs(dtype)[5:]
    proved = certify(model, x, method=method)
    outputs = graph(x)
    assert torch.equal(outputs["logits"], model(x))
    assert bool((outputs["radius"] <= proved.radius).all())
    torch.testing.assert_close(outputs["radius"], proved.radius, rtol=1e-13, atol=0)
    assert bool((outputs["radius"] > 0).all())
    assert float(graph.basis.bound) == float(proved.bound)
    assert (graph.basis.level, graph.basis.method) == ("real", proved.method)
    for row in ([math.nan, 0.0], [0.0, math.inf]):
        spoiled = x[:1].clone()
        spoiled[0, 0, 0, :2] = torch.tensor(row)
        assert graph(spoiled)["radius"].tolist() == [0.0]


def test_level_float_is_below_level_real_of_any_other_runtime():
    """Logits that are off by as much as the bound, in the worst direction, change nothing."""
    model = network()
    reach = 4.0
    graph = with_radius(model, SHAPE, reach=reach)
    x = inputs()
    outputs = graph(x)
    assert outputs["radius"][:5].tolist() == [0.0] * 5
    usual = x[5:]
    assert bool((outputs["radius"][5:] <= certify(model, usual).radius).all())
    assert bool((outputs["radius"][5:] > 0).all())
    error = float(onelip.certificates.forward_error.forward_error(model, SHAPE, reach))
    worst = torch.full((4,), -error / 2)
    for logits in (outputs["logits"][5:] + worst, outputs["logits"][5:] - worst):
        ahead = logits.clone()
        rows = torch.arange(len(ahead))
        ahead[rows, ahead.argmax(1)] += error / math.sqrt(2)
        claimed = graph.radius(usual, ahead)
        assert bool((claimed <= certify(model, usual).radius).all())


def test_level_float_ends_at_the_reach():
    model = network()
    graph = with_radius(model, SHAPE, reach=2.0)
    x = torch.rand(30, *SHAPE)
    x = (
        x
        / x.flatten(1).norm(dim=1)[:, None, None, None]
        * torch.linspace(1.9, 2.1, 30)[:, None, None, None].to(x.dtype)
    )
    room = 2.0 - x.double().flatten(1).norm(dim=1)
    radius = graph(x)["radius"]
    assert bool((radius <= room.clamp(min=0)).all())
    assert bool((radius[:10] > 0).all())
    assert not radius[room <= 0].any()


@pytest.mark.parametrize("reach", [0.0, -1.0, math.nan, math.inf])
def test_reach_is_a_length(reach):
    with pytest.raises(UsageError, match="reach is the length of the longest input"):
        with_radius(network(), SHAPE, reach=reach)


@pytest.mark.parametrize("method", [Local(radii=(0.1,)), HeadCurvature()], ids=["local", "mlp"])
def test_methods_that_need_more_than_logits_are_refused(method):
    model = network()
    if isinstance(method, HeadCurvature):
        model = onelip.export(nn.Sequential(nn.Flatten(), layers.MLPHead(16, 3, 8)).eval())
    with pytest.raises(NotApplicableError, match="depend on more than the logits"):
        with_radius(model, SHAPE, method=method)


def test_what_certify_refuses_is_refused():
    with pytest.raises(UsageError, match="training mode"):
        with_radius(network().train(), SHAPE)
    with pytest.raises(UsageError, match="16 bits"):
        with_radius(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval().bfloat16(), SHAPE)
    hooked = network()
    hooked[1].register_forward_hook(lambda *_: None)
    with pytest.raises(UnboundedModuleError, match="hook"):
        with_radius(hooked, SHAPE)

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(16, 3)

        def forward(self, x):
            return self.last(x.flatten(1) - x.flatten(1).mean(0))

    with pytest.raises((UsageError, UnboundedModuleError)):
        with_radius(Mixed().eval(), SHAPE)


def test_a_class_of_the_users_own_has_radii_and_no_known_rounding():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.b(torch.relu(self.a(x.flatten(1))))

    model, x = Net().eval().requires_grad_(False), torch.rand(9, *SHAPE)
    outputs = with_radius(model, SHAPE)(x)
    assert bool((outputs["radius"] <= certify(model, x).radius).all())
    assert torch.allclose(outputs["radius"], certify(model, x).radius)
    with pytest.raises(UnboundedModuleError):
        with_radius(model, SHAPE, reach=4.0)


def test_outputs_that_are_no_logits_are_refused():
    with pytest.raises(UsageError, match="are no logits"):
        with_radius(nn.Sequential(nn.Conv2d(1, 2, 3)).eval(), SHAPE)


# Files, where nothing of onelip is installed

ELSEWHERE = """
import sys
sys.modules["onelip"] = None  # an import of it raises
import numpy as np, onnxruntime, torch
session = onnxruntime.InferenceSession("network.onnx")
program = torch.export.load("network.pt2").module()
for count in ("many", "one"):
    x = np.load(count + ".npy")
    outputs = program(torch.from_numpy(x))
    np.savez(count + "-pt2.npz", **{name: outputs[name].numpy() for name in outputs})
    logits, radius = session.run(["logits", "radius"], {"input": x})
    np.savez(count + "-onnx.npz", logits=logits, radius=radius)
assert sys.modules["onelip"] is None
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory, onnx_registry_once):
    """Both files, and what a process without onelip computes by them."""
    folder, model = tmp_path_factory.mktemp("files"), network()
    np.save(folder / "many.npy", inputs().numpy())
    np.save(folder / "one.npy", inputs()[7:8].numpy())
    with quiet("torch.onnx"):
        for suffix in ("pt2", "onnx"):
            file = folder / f"network.{suffix}"
            onelip.save(model, file, SHAPE, with_radius=True, notes={"units": "pixels"})
    command = [sys.executable, "-W", "ignore", "-c", ELSEWHERE]
    subprocess.run(command, check=True, cwd=folder, capture_output=True, timeout=300)
    return folder, model


@pytest.mark.parametrize("count", ["many", "one"])
@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_files_without_onelip(suffix, count, files):
    folder, model = files
    x = torch.from_numpy(np.load(folder / f"{count}.npy"))
    found = np.load(folder / f"{count}-{suffix}.npz")
    logits, radius = torch.from_numpy(found["logits"]), torch.from_numpy(found["radius"])
    torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-5, equal_nan=True)
    constants = radius_proof("product", model, SHAPE).pairwise(4)
    usable = x.flatten(1).isfinite().all(1)[:, None]
    assert_below(radius, torch.where(usable, logits, math.nan), constants)


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_what_reads_networks_takes_the_logits(suffix, files, tmp_path, capsys):
    folder, model = files
    path = folder / f"network.{suffix}"
    bound = float(onelip.lipschitz_bound(onelip.reading.load(path)))
    assert bound == pytest.approx(float(onelip.lipschitz_bound(model)), rel=1e-6)
    x = inputs()[5:]
    assert torch.allclose(certify(path, x).radius, certify(model, x).radius, rtol=1e-3, atol=1e-6)
    assert main(["bound", str(path), "--methods", "product", "--seconds", "0.1"]) == 0
    assert "proved: " in capsys.readouterr().out
    assert main(["prove", str(path), "-o", str(tmp_path / "bundle")]) == 0


def test_files_say_what_their_radii_rest_on(files):
    folder, model = files
    with zipfile.ZipFile(folder / "network.pt2") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("extra/onelip.notes")]
        notes = json.loads(archive.read(name))
    stored = {entry.key: entry.value for entry in onnx.load(folder / "network.onnx").metadata_props}
    assert json.loads(stored["onelip.notes"]) == notes
    assert (notes["level"], notes["method"], notes["units"]) == ("real", "product", "pixels")
    assert notes["bound"] == float(onelip.lipschitz_bound(model))


@pytest.mark.filterwarnings("ignore")
def test_level_float_in_another_runtime_is_below_certify(tmp_path):
    """A head whose constants are near 1 and whose rounding is near 0: an optimiser of graphs that
    takes such numbers for 1 and 0 shows."""
    model = network(dtype=torch.float64)
    path = tmp_path / "network.onnx"
    onelip.save(model, path, SHAPE, with_radius=True, reach=4.0)
    graph, x = with_radius(model, SHAPE, reach=4.0), inputs(torch.float64)[5:]
    session = onnxruntime.InferenceSession(path)
    logits, radius = map(torch.from_numpy, session.run(["logits", "radius"], {"input": x.numpy()}))
    real = certify(model, x)
    assert 0 < graph.basis.lost < 1e-9
    assert torch.equal(radius, graph.radius(x, logits))
    assert bool((radius < real.radius).all())
    assert torch.allclose(radius, real.radius, rtol=1e-6)
    assert bool((radius <= certify(model, x, level="float").radius * (1 + 1e-9)).all())


@pytest.mark.filterwarnings("ignore")
def test_a_reach_without_radii_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--with-radius"):
        onelip.save(network(), tmp_path / "network.pt2", SHAPE, reach=4.0)


@pytest.mark.filterwarnings("ignore")
def test_a_file_whose_radii_are_off_by_a_bit_does_not_appear(tmp_path, monkeypatch):
    """As after an optimiser that leaves the rounding out."""
    run = save_module._FORMATS[".pt2"].run

    def off(file, x):
        outputs = run(file, x)
        return outputs | {"radius": outputs["radius"] * (1 + 1e-11)}

    form = save_module._FORMATS[".pt2"]._replace(run=off)
    monkeypatch.setitem(save_module._FORMATS, ".pt2", form)
    with pytest.raises(UsageError, match="computes something else"):
        onelip.save(network(), tmp_path / "network.pt2", SHAPE, with_radius=True)
    assert not [*tmp_path.iterdir()]
