"""Bundles at level float: what they execute is what torch executes, and what they refuse."""

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor, nn

import onelip
from onelip import layers, prove
from onelip.checker import check
from onelip.errors import NotApplicableError, UsageError
from onelip.layers.gradient_step import GradientStep
from onelip.layers.skew_exponential import FixedSOCConv2d
from onelip.proofs.executions import CHOICES, MOVES, SUMS, faithful
from tests.checker.executions import Execution

IMAGE = (2, 4, 4)


def sparse(module: nn.Module) -> nn.Module:
    """The module with one power of two in each sum, so that no order of summation matters."""
    rng = torch.Generator().manual_seed(0)
    for name, number in module.named_parameters():
        flat = torch.zeros_like(number).flatten(1) if number.ndim > 1 else number.detach()
        if number.ndim > 1:
            at = torch.randint(flat.shape[1], (len(flat), 1), generator=rng)
            flat.scatter_(1, at, 2.0 ** torch.randint(-2, 1, at.shape, generator=rng).float())
        else:
            flat = torch.rand(number.shape, generator=rng) - 0.5
        if "bias" in name or number.ndim > 1:
            number.data = flat.view_as(number)
    return module


def step(weight: Tensor, **how: object) -> GradientStep:
    """A gradient step with a length that is no power of two."""
    return GradientStep(weight, torch.rand(len(weight)), nn.ReLU(), torch.tensor(0.3), **how)


def skew() -> FixedSOCConv2d:
    """An exponential with one product in each sum."""
    weight = torch.zeros(2, 2, 1, 1)
    weight[0, 1], weight[1, 0] = 0.5, -0.5
    return FixedSOCConv2d(weight, torch.rand(2), 2, 2, image_size=4, terms=5)


PARTS: dict[str, tuple[nn.Module, ...]] = {
    "linear": (nn.Flatten(), nn.Linear(32, 4), nn.ReLU(), nn.Linear(4, 3)),
    "convolutions": (nn.Conv2d(2, 4, 3, stride=2, padding=1), layers.MaxMin(), nn.Conv2d(4, 2, 1)),
    "circular": (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), layers.GroupSort(2)),
    "slopes": (nn.Conv2d(2, 2, 1), nn.PReLU(2), layers.Abs(), nn.LeakyReLU(0.375)),
    "moves": (layers.ZeroPadChannels(4), layers.InvertibleDownsampling(2), nn.PixelShuffle(2)),
    "ways back": (
        layers.InvertibleDownsampling(2),
        layers.ChannelShuffle(4),
        layers.InvertibleUpsampling(2),
    ),
    "maxima": (nn.MaxPool2d(2, 1), layers.TruncateChannels(1), nn.ZeroPad2d(1), nn.Identity()),
    "halves": (layers.ChannelMaxPool(), nn.Conv2d(1, 2, 1), nn.Dropout()),
    "normalised": (layers.Normalize([0.3, 0.4], [0.25, 2.0]), nn.Conv2d(2, 2, 1)),
    "flat step": (nn.Flatten(), step(torch.eye(32)[:8])),
    "step": (step(torch.eye(2).view(2, 2, 1, 1), image_size=(4, 4)),),
    "exponential": (skew(),),
}


def network(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    kept = "step" in name or name == "exponential"
    parts = [part if kept else sparse(part) for part in PARTS[name]]
    return nn.Sequential(*parts).eval()


@pytest.mark.parametrize("name", PARTS)
def test_a_bundle_executes_what_torch_executes(name: str, tmp_path) -> None:
    """Bit by bit, where sums have one product, so that only the operations can differ."""
    model, x = network(name), torch.rand(4, *IMAGE)
    record = prove(model, tmp_path / "bundle", x, level="float")
    assert record["level"] == {"kind": "float", "numbers": "float32", "sums": "float32"}
    outputs = model(x).detach().flatten(1).numpy()
    tensors = safetensors.numpy.load_file(tmp_path / "bundle" / "tensors.safetensors")
    runs = [Execution(tensors=tensors, late=late, fused=f) for late in (0, 1) for f in (0, 1)]
    for sample, output in zip(x.numpy(), outputs, strict=True):
        found = np.stack([run(record, sample).astype(np.float32) for run in runs])
        assert (found == output).any(0).all()  # an entry at the end of a vector may not be fused


def test_every_part_of_the_table_is_compared() -> None:
    compared = {type(part) for parts in PARTS.values() for part in parts}
    for kind in (*MOVES, *CHOICES, *SUMS):
        known = kind in compared or kind.__name__.startswith(("Dropout", "AlphaDropout"))
        other = nn.Unflatten, nn.PixelUnshuffle, nn.ChannelShuffle, nn.ConvTranspose2d
        assert known or kind in other or kind is layers.FixedConv2d, kind


REFUSED: dict[str, nn.Module] = {
    "(x - mean) / std": layers.Normalize([0.3, 0.4], [0.3, 0.2]),
    "BatchNorm2d": nn.BatchNorm2d(2),
    "AvgPool2d": nn.AvgPool2d(2),
    "no power of two": layers.ScaledAvgPool2d(3),
    "no number of float32": nn.LeakyReLU(0.1),
    "Householder": layers.Householder(2),
    "Tanh": nn.Tanh(),
    "Rescale": layers.Rescale(0.3),
    "Conv1d": nn.Sequential(nn.Flatten(2), nn.Conv1d(2, 2, 1)),
}


@pytest.mark.parametrize("text", REFUSED)
def test_other_executions_are_refused(text: str, tmp_path) -> None:
    model = nn.Sequential(REFUSED[text], nn.Flatten()).eval()
    with pytest.raises(NotApplicableError) as caught:
        prove(model, tmp_path / "bundle", torch.rand(2, *IMAGE), level="float")
    assert text.partition("(")[0] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_what_level_float_is_not_for(tmp_path) -> None:
    x, target = torch.rand(2, *IMAGE), tmp_path / "bundle"
    model = network("linear")

    def refused(text: str, kind: type[Exception], *arguments, **how) -> None:
        with pytest.raises(kind, match=text):
            prove(*arguments, level="float", **how)
        assert not target.exists()

    late = nn.Sequential(nn.Conv2d(2, 2, 1), layers.Normalize([0.5, 0.5], [0.5, 0.5]), nn.Flatten())
    refused("at the start", NotApplicableError, late.eval(), target, x)
    refused("no numbers of", UsageError, model, target, x.double() + 1e-12)
    refused("files beside", NotApplicableError, model, target, x, formats=("pt2",))
    refused("product of norms", NotApplicableError, model, target, x, method="lipsdp")
    refused("a file", NotApplicableError, tmp_path / "net.pt2", target, x)
    mixed = nn.Sequential(nn.Flatten(), nn.Linear(32, 3), nn.Linear(3, 3).double()).eval()
    refused("several dtypes|float32, float64", UsageError, mixed, target, x)
    with torch.no_grad():
        model[1].weight[0, 0] = 1e-40
    refused("subnormal", NotApplicableError, model, target, x)
    wide = onelip.export(network("linear"), accumulate=torch.float64)
    wide[3] = wide[3].part
    refused("beside others in float64", NotApplicableError, wide, target, x)
    with pytest.raises(UsageError, match="nothing is known"):
        prove(model, target, x, level="half")


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    steps = layers.ConvexPotentialConv2d(4, 4, 3, image_size=4)
    return {
        "digits": nn.Sequential(
            *(layers.ZeroPadChannels(4), steps, layers.ScaledAvgPool2d(2), nn.Flatten()),
            *(layers.ConvexPotentialLinear(16, 16), nn.Linear(16, 5)),
        ),
        "bcop": nn.Sequential(
            layers.BCOPConv2d(2, 4, 3, image_size=4),
            *(layers.MaxMin(), nn.Flatten(), layers.CholeskyLinear(64, 16), nn.Linear(16, 5)),
        ),
        "soc": nn.Sequential(
            layers.SOCConv2d(2, 4, 3, image_size=4),
            *(layers.ChannelMaxPool(), nn.Flatten(), layers.UnitNormLinear(32, 5)),
        ),
    }


@pytest.mark.parametrize("name", ["digits", "bcop", "soc"])
def test_radii_are_near_those_of_certify(name: str, tmp_path) -> None:
    exported, x = onelip.export(networks()[name].eval()), torch.rand(12, *IMAGE)
    real = prove(exported, tmp_path / "real", x)
    single = prove(exported, tmp_path / "single", x, level="float")
    double = prove(exported.double(), tmp_path / "double", x.double(), level="float")
    radii = [
        torch.tensor([float.fromhex(r) for r in record["samples"]["radii"]])
        for record in (real, single, double)
    ]
    assert (radii[1] < radii[0] + 1e-9).all()
    assert torch.allclose(radii[2], radii[0], rtol=1e-5)
    certified = onelip.certify(exported.float(), x, level="float").radius
    assert float(radii[1].sum()) > 0.97 * float(certified.sum()) > 0
    if name == "digits":
        return
    wide = onelip.export(networks()[name].eval(), accumulate=torch.float64)
    record = prove(wide, tmp_path / "wide", x, level="float")
    assert record["level"]["sums"] == "float64"
    found = torch.tensor([float.fromhex(r) for r in record["samples"]["radii"]])
    assert torch.allclose(found, radii[0], rtol=1e-2 if name == "soc" else 1e-4)


def test_radii_are_as_large_as_the_checker_takes(tmp_path) -> None:
    model, x = onelip.export(networks()["bcop"].eval()), torch.rand(6, *IMAGE)
    record = prove(model, tmp_path / "bundle", x, level="float")
    for at, text in enumerate(record["samples"]["radii"]):
        changed = json.loads(json.dumps(record))
        changed["samples"]["radii"][at] = (float.fromhex(text) * (1 + 2e-6)).hex()
        (tmp_path / "bundle" / "proof.json").write_text(json.dumps(changed))
        with pytest.raises(check.Invalid, match=f"sample {at}: the radius"):
            check.check(tmp_path / "bundle", say=lambda _: None)


def test_averages_are_the_same_network() -> None:
    model = onelip.export(networks()["digits"].eval())
    same, _ = faithful(model, IMAGE)
    x = torch.rand(3, *IMAGE)
    assert torch.allclose(model(x), same(x), atol=1e-6)
