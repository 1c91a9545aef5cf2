"""The checker in Go: its own tests, and whether it says what check.py says."""

import hashlib
import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from onelip import layers, prove
from tests.checker.bundles import NETWORKS, write
from tests.checker.mutants import mutate
from tests.checker.programs import GO_SOURCE, call_go, python_verdict, verdict
from tests.checker.truth import Truth, false_claims

MORE = {
    "torus": (
        nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1, groups=2),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=2, dilation=2),
            layers.MaxMin(),
            nn.Conv2d(8, 4, 2, stride=2),
            nn.Flatten(),
            nn.Linear(196, 3),
        ),
        (2, 30, 30),
    ),
    "circular": (
        nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1, padding_mode="circular"),
            nn.ReLU(),
            layers.SOCConv2d(4, 4, 3, image_size=20),
            nn.MaxPool2d(3, 2),
            nn.Flatten(),
            nn.Linear(324, 3),
        ),
        (1, 40, 40),
    ),
    "volumes": (
        nn.Sequential(
            nn.Conv3d(1, 2, 2, stride=(1, 2, 1), padding=1),
            nn.ReLU(),
            nn.ConvTranspose3d(2, 1, 2, stride=(1, 2, 1)),
            layers.Abs(),
            nn.Flatten(),
            nn.Linear(120, 6),
            nn.Unflatten(1, (2, 3)),
            nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1),
        ),
        (1, 2, 4, 3),
    ),
    "wide": (nn.Sequential(nn.Linear(200, 150), nn.ReLU(), nn.Linear(150, 3)), (200,)),
}
ALL = [*NETWORKS, *MORE]
MUTANTS = 30  # of each
UNKNOWN_TO_FLOAT = {
    **{"smooth": "activation", "head": "activation", "multipliers": "method", "fourier": "map"},
    **dict.fromkeys(["pool", "extremes", "gated", "plane", "piecewise"], "activation"),
}
MORE_DIGITS = ("steps", "class")  # some of their numbers are not of float32
FLOAT = [name for name in NETWORKS if name not in UNKNOWN_TO_FLOAT]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for name in NETWORKS:
        write(name, folder / name)
    for name, (model, shape) in MORE.items():
        torch.manual_seed(2)
        for p in model.parameters():
            nn.init.normal_(p, std=0.3)
        prove(model.eval(), folder / name, torch.rand(3, *shape), about=name)
    return {name: folder / name for name in ALL}


def test_its_own_tests(go: Path) -> None:
    call_go("vet", ".")
    call_go("test", ".")
    wrong = subprocess.run(["gofmt", "-l", "."], cwd=GO_SOURCE, capture_output=True, check=True)
    assert not wrong.stdout
    assert "require" not in (GO_SOURCE / "go.mod").read_text()


@pytest.mark.parametrize("name", ALL)
def test_bundles_hold(name: str, go: Path, bundles) -> None:
    assert not verdict(go, bundles[name])


def test_what_it_does_not_know_is_invalid(go: Path, bundles, tmp_path) -> None:
    folder = shutil.copytree(bundles["smooth"], tmp_path / "mutant")
    text = (folder / "proof.json").read_text()
    for known, unknown in (
        ('"kind": "softplus"', '"kind": "swish"'),
        ('"map": "dense"', '"map": "low-rank"'),
        ('"network"', '"logits"'),
    ):
        assert known in text
        (folder / "proof.json").write_text(text.replace(known, unknown))
        assert verdict(go, folder)


@pytest.mark.parametrize("name", ALL)
def test_mutants_get_the_same_verdict(name: str, go: Path, bundles, tmp_path) -> None:
    """No false claim is VALID; where a true one is close, rounding may decide for check.py."""
    folder, refused, close = tmp_path / "mutant", 0, 0
    for seed in range(MUTANTS):
        kind = mutate(bundles[name], folder, random.Random(f"{name} {seed}"))
        found, other = verdict(go, folder), python_verdict(folder)
        close += (differ := bool(found) != bool(other))
        allowed = "claimed" in other or "grid" in other
        assert not differ or allowed, (seed, kind, found, other)
        small = name in NETWORKS  # the truth of the others takes seconds
        assert found or not (small and false_claims(folder)), (seed, kind)
        refused += bool(found)
    assert refused > MUTANTS / 3
    assert close <= 2


def _at_level(bundle: Path, folder: Path, level: object, factor: float = 1.0) -> Path:
    """A copy at another level, with its radii times a factor."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    record = json.loads((folder / "proof.json").read_text()) | {"level": level}
    samples = record["samples"]
    samples["radii"] = [(float.fromhex(text) * factor).hex() for text in samples["radii"]]
    (folder / "proof.json").write_text(json.dumps(record))
    return folder


def _float(numbers: str, sums: str) -> dict[str, str]:
    return {"kind": "float", "numbers": numbers, "sums": sums}


@pytest.mark.parametrize("name", FLOAT)
def test_mutants_at_level_float_get_the_same_verdict(name: str, go: Path, bundles, tmp_path):
    numbers, folder, refused = (
        "float64" if name in MORE_DIGITS else "float32",
        tmp_path / "mutant",
        0,
    )
    level = {"kind": "float", "numbers": numbers, "sums": "float64"}
    start = _at_level(bundles[name], tmp_path / "start", level, 0.3)
    assert not verdict(go, start)
    assert not python_verdict(start)
    for seed in range(MUTANTS):
        kind = mutate(start, folder, random.Random(f"float {name} {seed}"))
        found, other = verdict(go, folder), python_verdict(folder)
        assert bool(found) == bool(other) or "claimed" in other, (seed, kind, found, other)
        assert found or not false_claims(folder), (seed, kind)
        refused += bool(found)
    assert refused > MUTANTS / 3


@pytest.mark.parametrize("name", ALL)
def test_radii_are_accepted_up_to_the_truth(name: str, go: Path, bundles, tmp_path) -> None:
    record = json.loads((bundles[name] / "proof.json").read_text())
    folder = shutil.copytree(bundles[name], tmp_path / "mutant")
    samples = record["samples"]
    for i, text in enumerate(samples["radii"]):
        claimed = float.fromhex(text)
        if claimed < 1e-3:
            continue
        low, high = claimed, 2 * claimed
        while high > low * (1 + 1e-12):  # the largest that plain float64 does not contradict
            samples["radii"][i] = ((low + high) / 2).hex()
            low, high = (
                (low, (low + high) / 2) if _false(folder, record) else ((low + high) / 2, high)
            )
        for factor, valid in ((1 - 1e-6, True), (1 + 1e-9, False)):
            samples["radii"][i] = (low * factor).hex()
            (folder / "proof.json").write_text(json.dumps(record))
            assert (verdict(go, folder) == "") is valid
        samples["radii"][i] = text


def _false(folder: Path, record: dict) -> bool:
    """Whether a radius is false."""
    import safetensors.torch

    truth = Truth(safetensors.torch.load_file(folder / "tensors.safetensors"), 0.0)
    norms = [float.fromhex(block["bound"]) for block in record["network"]["blocks"]]
    body = torch.tensor(norms, dtype=torch.float64).prod().item()
    last = [float.fromhex(entry["norm"]) for entry in record["network"]["last"]]
    whole = body * torch.tensor(last, dtype=torch.float64).prod().item()
    if record["network"]["method"] is not None:
        whole = float.fromhex(record["bound"])
    truth._samples(record, body, whole)
    return bool(truth.false)


def test_what_it_refuses_to_read(go: Path, bundles, tmp_path) -> None:
    folder = shutil.copytree(bundles["dense"], tmp_path / "mutant")
    text = (folder / "proof.json").read_text()
    record = json.loads(text)

    def refused(changed: str | bytes) -> None:
        data = changed if isinstance(changed, bytes) else changed.encode()
        assert data != text.encode()
        (folder / "proof.json").write_bytes(data)
        assert verdict(go, folder)

    for changed in (
        "",
        text + "x",
        text[:-2],
        text.replace("{", '{"format": "onelip proof",', 1),
        text.replace('"format"', '"Format"'),
        text.replace('"version": 1', '"version": 1.0'),
        text.replace('"version": 1', '"version": true'),
        text.replace('"version": 1', '"version": 2'),
        text.replace('"about": "', '"about": "\\ud800'),
        text.encode().replace(b'"about": "', b'"about": "\xff'),
        b"\xef\xbb\xbf" + text.encode(),
        text.encode("utf-16"),
        "[" * 10**6,
        '{"a":' * 10**6,
        text.replace('"0x', '" 0x', 1),
        text.replace('"0x', '"-0x', 1),
    ):
        refused(changed)
    files = record["files"]
    for names in (
        {},
        {"../mutant/tensors.safetensors": files["tensors.safetensors"]},
        {"": "0" * 64},
        {"..": ""},
        {".": ""},
    ):
        refused(json.dumps(record | {"files": files | names if names else {}}))
    upper = {"tensors.safetensors": files["tensors.safetensors"].upper()}
    refused(json.dumps(record | {"files": upper}))
    (folder / "proof.json").write_text(text)
    assert not verdict(go, folder)
    for name in ("proof.json", "tensors.safetensors"):
        (folder / name).unlink()
        (folder / name).mkdir()
        assert verdict(go, folder)
        (folder / name).rmdir()
        shutil.copy(bundles["dense"] / name, folder)
    for arguments in ((), ("a", "b"), ("-workers", "0", str(folder)), ("-more", str(folder))):
        done = subprocess.run([go, *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 2
        assert not done.stdout
    done = subprocess.run([go, "-workers", "3", folder], check=False, capture_output=True)
    assert done.returncode == 0


@pytest.mark.parametrize("name", ALL)
def test_level_float(name: str, go: Path, bundles, tmp_path) -> None:
    folder = tmp_path / "mutant"
    found = verdict(go, _at_level(bundles[name], folder, _float("float64", "float64"), 1 - 1e-8))
    assert UNKNOWN_TO_FLOAT.get(name, "") in found
    assert bool(found) is (name in UNKNOWN_TO_FLOAT)
    if name in UNKNOWN_TO_FLOAT:
        return
    if name in MORE_DIGITS:
        found = verdict(go, _at_level(bundles[name], folder, _float("float32", "float32"), 0.0))
        assert "format" in found
        return
    for sums, factor in (("float32", 0.3), ("float64", 0.98)):
        level = _float("float32", sums)
        assert not verdict(go, _at_level(bundles[name], folder, level, factor))
        assert "radius" in verdict(go, _at_level(bundles[name], folder, level, 1 + 1e-4))
    # a radius that exact numbers allow, and 24 digits do not
    assert "radius" in verdict(go, _at_level(bundles[name], folder, _float("float32", "float32")))


@pytest.mark.parametrize("numbers", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", [name for name in FLOAT if name not in MORE_DIGITS])
def test_what_is_proved_at_level_float_holds(
    name: str, numbers: torch.dtype, go: Path, tmp_path
) -> None:
    """Radii of the library, with little room, are shown by both; a mutant gets one verdict."""
    build, shape = NETWORKS[name]
    torch.manual_seed(1)
    model, folder, start = build().eval().to(numbers), tmp_path / "mutant", tmp_path / "start"
    prove(model, start, torch.rand(3, *shape, dtype=numbers), level="float")
    assert not verdict(go, start)
    assert not python_verdict(start)
    for seed in range(MUTANTS // 3):
        kind = mutate(start, folder, random.Random(f"proved {name} {numbers} {seed}"))
        found, other = verdict(go, folder), python_verdict(folder)
        assert bool(found) == bool(other) or "claimed" in other, (seed, kind, found, other)


def test_levels_are_read_strictly(go: Path, bundles, tmp_path) -> None:
    folder, known = tmp_path / "mutant", _float("float32", "float64")
    assert not verdict(go, _at_level(bundles["dense"], folder, known, 0.9))
    for level in (
        *(None, 1, True, "float", "REAL", [], ["real"], {}, "float32", {"kind": "real"}),
        *(known | {"kind": "real"}, known | {"numbers": "float16"}, known | {"sums": "bfloat16"}),
        *(known | {"more": 1}, known | {"sums": None}, _float("float64", "float32")),
        {"kind": "float", "numbers": "float32"},
    ):
        assert verdict(go, _at_level(bundles["dense"], folder, level, 0.0)), level


def test_another_file_is_checked_by_its_digest(go: Path, bundles, tmp_path) -> None:
    folder = shutil.copytree(bundles["dense"], tmp_path / "mutant")
    record = json.loads((folder / "proof.json").read_text())
    (folder / "network.onnx").write_bytes(b"anything")
    record["files"]["network.onnx"] = hashlib.sha256(b"anything").hexdigest()
    (folder / "proof.json").write_text(json.dumps(record))
    assert not verdict(go, folder)
    (folder / "network.onnx").write_bytes(b"anythinG")
    assert "digest" in verdict(go, folder)


def test_multipliers_are_not_for_blocks_with_a_way_around(go: Path, bundles, tmp_path) -> None:
    """An empty list of maps is the identity: the form is not that of this network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    folder = tmp_path / "square"
    prove(model, folder, input_shape=(5,), method="lipsdp")
    assert not verdict(go, folder)
    record = json.loads((folder / "proof.json").read_text())
    block = record["network"]["blocks"][0]
    block["skip"] = []
    block["bound"] = (float.fromhex(block["bound"]) * (1 + 1e-9) + 1).hex()
    (folder / "proof.json").write_text(json.dumps(record))
    assert verdict(go, folder)
    assert python_verdict(folder)
    assert false_claims(folder)
