"""Bundles from models, files and runs: what is written, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import onelip
from onelip import layers, prove
from onelip.bounds import LipSDP, Product
from onelip.cli import main
from onelip.errors import NotApplicableError, UsageError
from onelip.proofs.files import compared
from onelip.proofs.inside import read_inside, write_inside
from tests.cases import CASES
from tests.checker.truth import Truth

LOOSER = "Sandwich", "SiLU"  # its two maps are counted one by one
UNPROVED = (  # no kind of the format says a minimum of cones, or networks side by side
    *("LipschitzExtension", "Residual", "WeightedResidual", "MeanSquareResidual"),
    *("Split", "Concatenated", "LayerCentering", "SoftHuber", "InvertibleResidual", "Monotone"),
)


@pytest.mark.parametrize("name", UNPROVED)
def test_what_has_no_proof_yet_says_so(name, tmp_path) -> None:
    case = next(case for case in CASES if case.id.startswith(name))
    with pytest.raises(NotApplicableError, match=r"no proof of \w+ can be written yet"):
        prove(case.build().eval(), tmp_path / "bundle", torch.rand(4, *case.input_shape))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.id.startswith(UNPROVED)], ids=lambda case: case.id
)
def test_every_row(case, tmp_path) -> None:
    torch.manual_seed(0)
    model = case.build().eval()
    x = torch.rand(4, *case.input_shape)
    record = prove(model, tmp_path / "bundle", 3 * x - 1.5)
    fixed = onelip.export(model)
    bound = float(Product().bound(fixed, case.input_shape))
    if not case.id.startswith(LOOSER):
        assert float.fromhex(record["bound"]) <= bound * (1 + 1e-5) + 1e-12
    tensors = safetensors.torch.load_file(tmp_path / "bundle" / "tensors.safetensors")
    samples = tensors[record["samples"]["inputs"]]
    values, wanted = Truth(tensors, 0.0).forward(record, samples), fixed.double()(samples.double())
    assert torch.allclose(values.view_as(wanted), wanted, rtol=1e-6, atol=1e-6)


def test_a_layer_without_a_record(tmp_path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanhshrink()).eval()
    with pytest.raises(NotApplicableError, match="no proof of Tanhshrink can be written yet"):
        prove(model, tmp_path / "bundle", torch.rand(2, 4))
    assert not list(tmp_path.iterdir())


def network() -> nn.Sequential:
    torch.manual_seed(0)
    parts = layers.CholeskyLinear(6, 6), layers.MaxMin(), layers.ConvexPotentialLinear(6, 4)
    return nn.Sequential(*parts, nn.Linear(6, 3)).eval()


def test_radii_are_those_of_certify(tmp_path) -> None:
    model, x = onelip.export(network()), torch.rand(20, 6)
    record = prove(model, tmp_path / "bundle", x)
    certificate = onelip.certify(model, x)
    assert record["samples"]["predictions"] == certificate.prediction.tolist()
    radii = torch.tensor([float.fromhex(radius) for radius in record["samples"]["radii"]])
    assert (radii <= certificate.radius + 1e-6).all()
    assert (radii >= certificate.radius - 1e-5).all()


def test_multipliers_show_what_lipsdp_finds(tmp_path) -> None:
    torch.manual_seed(0)
    parts = nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 8), nn.LeakyReLU(0.3), nn.Linear(8, 3)
    model = nn.Sequential(*parts).eval()
    found = prove(model, tmp_path / "bundle", input_shape=(5,), method="lipsdp")
    best = float(LipSDP().bound(model, (5,)))
    assert float.fromhex(found["bound"]) <= best * 1.001 < float(Product().bound(model, (5,)))


def test_what_is_refused_writes_nothing(tmp_path) -> None:
    model, x = network(), torch.rand(2, 6)
    target = tmp_path / "bundle"

    def refused(text: str, *arguments, kind=UsageError, **options) -> None:
        with pytest.raises(kind, match=text):
            prove(*arguments, **options)
        assert not list(tmp_path.iterdir())

    refused("takes inputs of shape", model, target, torch.rand(2, 5))
    refused("samples of shape", model, target, x[:0])
    refused("float32 or float64", model, target, x.half())
    refused("shape of one input", model, target)
    refused("nothing is known of", model, target, x, method="guess")
    refused("infinite or NaN", model, target, x * torch.inf)
    refused("sorting", model[:2], target, x, method="lipsdp", kind=NotApplicableError)
    refused("ends in", model, target, x, formats=("pickle",))
    target.mkdir()
    with pytest.raises(UsageError, match="exists"):
        prove(model, target, x)
    assert not list(target.iterdir())


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_files(suffix: str, tmp_path, capsys) -> None:
    model, x = network(), torch.rand(3, 6)
    file = tmp_path / f"given.{suffix}"
    onelip.save(model, file, (6,))
    np.save(tmp_path / "x.npy", x.numpy())
    bundle = tmp_path / "bundle"
    arguments = ["prove", str(file), "-o", str(bundle), "--inputs", str(tmp_path / "x.npy")]
    assert main(arguments) == 0
    assert "3 samples" in capsys.readouterr().out
    assert main(["check", str(bundle), "--files"]) == 0
    assert f"network.{suffix}: onelip reads the network" in capsys.readouterr().out
    assert main(arguments) == 2
    assert "never overwritten" in capsys.readouterr().err
    np.save(tmp_path / "x.npy", x.numpy().astype(np.int64))
    assert main([*arguments[:3], str(tmp_path / "other"), *arguments[4:]]) == 2
    assert main(["check", str(tmp_path)]) == 1
    assert "INVALID: proof.json" in capsys.readouterr().out
    assert main(["check"]) == 2


def test_files_beside_a_proof_are_compared_with_it(tmp_path) -> None:
    model, x = network(), torch.rand(3, 6)
    prove(model, tmp_path / "bundle", x, formats=("pt2",))
    assert compared(tmp_path / "bundle") == {"network.pt2": ""}
    other = network()
    with torch.no_grad():
        other[-1].weight[0, 0] += 1e-6
    onelip.save(other, Path(tmp_path / "bundle" / "network.pt2"), (6,))
    assert "part" in compared(tmp_path / "bundle")["network.pt2"]


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_claims_travel_inside(suffix: str, tmp_path) -> None:
    model, x = network(), torch.rand(3, 6)
    record = prove(model, tmp_path / "bundle", x, formats=(suffix,))
    file = tmp_path / "bundle" / f"network.{suffix}"
    claims = read_inside(file)
    assert claims["bound"] == record["bound"]
    assert read_inside(tmp_path / "bundle" / "tensors.safetensors") == claims
    assert compared(tmp_path / "bundle") == {file.name: ""}
    assert onelip.certify(file, x).prediction.tolist() == record["samples"]["predictions"]
    write_inside(file, claims | {"bound": "0x1p-3"})
    assert "bound inside" in compared(tmp_path / "bundle")[file.name]
    write_inside(file, claims | {"network": "0" * 64})
    assert "another network" in compared(tmp_path / "bundle")[file.name]
    onelip.save(model, file, (6,))
    assert read_inside(file) == {}
    assert compared(tmp_path / "bundle") == {file.name: ""}


@pytest.mark.parametrize("activation", [nn.Softplus(), nn.Tanh(), nn.Sigmoid()], ids=repr)
def test_curvature_of_an_mlp_head(activation: nn.Module, tmp_path) -> None:
    torch.manual_seed(0)
    head = layers.MLPHead(6, 4, hidden=9, activation=activation)
    model = onelip.export(nn.Sequential(layers.CholeskyLinear(6, 6), layers.MaxMin(), head).eval())
    x = torch.rand(30, 6)
    record = prove(model, tmp_path / "bundle", x)
    assert record["samples"]["head"]["kind"] == "curvature"
    radii = torch.tensor([float.fromhex(radius) for radius in record["samples"]["radii"]])
    searched = onelip.certify(model, x, method="curvature").radius
    assert (radii <= searched * (1 + 1e-4) + 1e-6).all()  # the closed form, without a search
    assert float(radii.sum()) > 0.7 * float(searched.sum())
    assert float(radii.sum()) > float(onelip.certify(model, x).radius.sum())
