"""Bundles that hold, the checker as a file by itself, and what it says of claims that are false."""

import ast
import copy
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from onelip.checker import check
from tests.checker.bundles import NETWORKS, write
from tests.checker.truth import Truth, false_claims

CHECKER = Path(check.__file__)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    for name in NETWORKS:
        write(name, folder / name)
    return {name: folder / name for name in NETWORKS}


def verdict(folder: Path) -> str:
    """Empty for VALID, else the reason."""
    try:
        check.check(folder, say=lambda _: None)
    except check.Invalid as error:
        return str(error)
    return ""


def changed(bundle: Path, folder: Path, record: dict, tensors: dict | None = None) -> Path:
    """A copy with another record, perhaps other tensors, and right digests."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    if tensors is not None:
        safetensors.torch.save_file(tensors, folder / "tensors.safetensors")
        data = (folder / "tensors.safetensors").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        record = record | {"files": {"tensors.safetensors": digest}}
    (folder / "proof.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("name", NETWORKS)
def test_they_hold_and_are_true(name: str, bundles) -> None:
    assert not verdict(bundles[name])
    assert not false_claims(bundles[name])


@pytest.mark.parametrize("name", NETWORKS)
def test_values_are_within_their_error(name: str, bundles) -> None:
    record = json.loads((bundles[name] / "proof.json").read_text())
    data = (bundles[name] / "tensors.safetensors").read_bytes()
    tensors = check.Tensors(data)
    network = check.Network(record["network"], tensors, tuple(record["input"]), lambda _: None)
    x = tensors.get(record["samples"]["inputs"])
    found = network(check.Grid.of(x, check.VALUE))
    truth = Truth(safetensors.torch.load(data), 0.0)
    exact = truth.forward(record, torch.from_numpy(x.copy())).flatten(1)
    values = torch.from_numpy(found.ints.astype(float)).flatten(1) * float(
        check.two(found.exponent)
    )
    error = float(found.error)
    assert float((values - exact).norm(dim=1).max()) <= error + 1e-13
    assert error < 1e-7 * (1 + float(exact.abs().max()))


@pytest.mark.parametrize("name", NETWORKS)
def test_each_claim_that_is_made_smaller_is_refused(name: str, bundles, tmp_path) -> None:
    record = json.loads((bundles[name] / "proof.json").read_text())

    def smaller(entry, key) -> None:
        number = float.fromhex(entry[key])
        entry[key] = (number * (1 - 1e-6)).hex()

    places = list(_claims(record))
    assert len(places) > 3
    for path in places:
        mutant = copy.deepcopy(record)
        *way, key = path
        entry = mutant
        for step in way:
            entry = entry[step]
        smaller(entry, key)
        folder = changed(bundles[name], tmp_path / "mutant", mutant)
        if float.fromhex(entry[key]) == 0 or not false_claims(folder, 1e-8):
            continue  # some claims have more room
        assert verdict(folder), path


def _claims(record, path=()):
    """Places of all claims but radii; a step is a part of the network."""
    if isinstance(record, dict):
        for key, value in record.items():
            if key in ("norm", "bound"):
                yield (*path, key)
            elif key != "samples":
                yield from _claims(value, (*path, key))
    elif isinstance(record, list):
        for i, value in enumerate(record):
            yield from _claims(value, (*path, i))


@pytest.mark.parametrize("name", NETWORKS)
def test_radii_that_are_too_large_and_other_predictions(name: str, bundles, tmp_path) -> None:
    record = json.loads((bundles[name] / "proof.json").read_text())
    for i, text in enumerate(record["samples"]["radii"]):
        if float.fromhex(text) < 1e-4:
            continue
        mutant = copy.deepcopy(record)
        mutant["samples"]["radii"][i] = (float.fromhex(text) * 1.001).hex()
        assert "radius" in verdict(changed(bundles[name], tmp_path / "mutant", mutant))
        mutant["samples"]["radii"][i] = (float.fromhex(text) * 0.999).hex()
        assert not verdict(changed(bundles[name], tmp_path / "mutant", mutant))
        mutant["samples"]["predictions"][i] = (record["samples"]["predictions"][i] + 1) % 3
        assert "radius" in verdict(changed(bundles[name], tmp_path / "mutant", mutant))


def test_a_reason_is_one_line(bundles, tmp_path, capsys) -> None:
    record = json.loads((bundles["dense"] / "proof.json").read_text())
    folder = changed(bundles["dense"], tmp_path / "mutant", record | {"a\nVALID\n": 1})
    assert check.main([str(folder)]) == 1
    assert capsys.readouterr().out.count("\n") == 1


def test_a_byte_of_the_weights(bundles, tmp_path) -> None:
    folder = tmp_path / "mutant"
    shutil.copytree(bundles["dense"], folder)
    data = bytearray((folder / "tensors.safetensors").read_bytes())
    data[-3] ^= 1
    (folder / "tensors.safetensors").write_bytes(bytes(data))
    assert "digest" in verdict(folder)


def test_what_is_not_known_or_not_there(bundles, tmp_path) -> None:
    record = json.loads((bundles["dense"] / "proof.json").read_text())

    def refused(text: str, **changes) -> None:
        mutant = record | changes
        assert text in verdict(changed(bundles["dense"], tmp_path / "mutant", mutant))

    refused("unknown or missing", more=1)
    refused("version", version=2)
    refused("an object", level="float")
    refused("unknown kind", level="other")
    refused("another level", level={"kind": "real"})
    refused("digest", files={**record["files"], "../proof.json": "0" * 64})
    refused("no file", files={**record["files"], "other.onnx": "0" * 64})
    refused("files are asked", files={})
    refused("no number", bound="nan")
    refused("no number", bound="0x1p+2000")
    refused("no number", bound=1.5)
    refused("a list of numbers", input=5)
    block = record["network"]["blocks"][0]
    for change in (
        {"activation": {"kind": "softplus"}},
        {"activation": {"kind": ["sort"]}},
        {"inner": [{"map": "pickle"}]},
        {"inner": {}},
        {"inner": [7]},
        {"step": "0x1p-1"},
    ):
        refused("", network=record["network"] | {"blocks": [block | change]})
        assert verdict(tmp_path / "mutant")
    record = json.loads((bundles["transposed"] / "proof.json").read_text())
    record["network"]["blocks"][0]["inner"][0]["of"]["map"] = "dense"
    assert "unknown map dense" in verdict(
        changed(bundles["transposed"], tmp_path / "mutant", record)
    )
    (tmp_path / "mutant" / "proof.json").write_text("[" * 100000)
    assert "cannot be read" in verdict(tmp_path / "mutant")
    (tmp_path / "mutant" / "proof.json").write_bytes(b'{"a": 1, "a": 2}')
    assert "twice" in verdict(tmp_path / "mutant")
    assert "proof.json" in verdict(tmp_path)


def test_it_is_one_short_file_that_imports_numpy_alone() -> None:
    allowed = set(sys.stdlib_module_names) | {"numpy"}
    for path in (CHECKER, *sorted((CHECKER.parent / "kinds").glob("*.py"))):
        text = path.read_text()
        assert len(text.splitlines()) <= (700 if path == CHECKER else 300), path
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or "."]
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert {name.partition(".")[0] for name in names} <= allowed, path


def test_as_a_program_where_nothing_else_is_installed(bundles, tmp_path) -> None:
    shutil.copytree(CHECKER.parent, tmp_path / "checker")
    script = (
        "import runpy, sys; "
        "sys.modules.update(torch=None, onelip=None, scipy=None, safetensors=None); "
        f"sys.argv[:] = ['check.py', {str(bundles['skew'])!r}]; "
        f"runpy.run_path({str(tmp_path / 'checker' / 'check.py')!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "VALID" in done.stdout
    assert "Taken on trust" in done.stdout
    arguments = [sys.executable, str(CHECKER), str(tmp_path)]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("INVALID: proof.json")
    done = subprocess.run(arguments[:2], check=False, capture_output=True, text=True)
    assert done.returncode == 2


@pytest.mark.parametrize("name", NETWORKS)
def test_the_schema_knows_them(name: str, bundles) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((CHECKER.parent / "proof.schema.json").read_text())
    jsonschema.validate(json.loads((bundles[name] / "proof.json").read_text()), schema)
