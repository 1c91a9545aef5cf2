"""Signatures over bundles, by the commands of docs/trust.md."""

import importlib.util
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "src" / "onelip" / "checker" / "corpus" / "valid" / "map-dense"
SECTION = "## Sign a bundle"


def commands() -> list[list[str]]:
    """The commands of the section, in their order."""
    text = (ROOT / "docs" / "trust.md").read_text()
    block = text.split(SECTION)[1].split("```")[1]
    return [shlex.split(line, comments=True) for line in block.splitlines() if line.strip()]


def runs(command: list[str], folder: Path) -> bool:
    """Whether a command ends with the status 0."""
    if command[0] == "model_signing":
        command = [sys.executable, "-m", *command]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    return done.returncode == 0


@pytest.fixture
def folder(tmp_path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here")
    shutil.copytree(BUNDLE, tmp_path / "BUNDLE")
    return tmp_path


def _signed_and_verified(tool: str, folder: Path) -> None:
    keys, signed = [], []
    for command in commands():
        mine = command[0] == "openssl" if tool == "openssl" else command[0] == tool
        (keys if command[1] in ("ecparam", "ec") else signed if mine else []).append(command)
    assert len(keys) == 2
    sign, verify = (c for c in signed if c not in keys)
    assert all(runs(command, folder) for command in (*keys, sign, verify))
    proof = folder / "BUNDLE" / "proof.json"
    proof.write_bytes(proof.read_bytes() + b" ")
    assert not runs(verify, folder)


def test_by_openssl(folder: Path) -> None:
    _signed_and_verified("openssl", folder)


def test_by_model_signing(folder: Path) -> None:
    missing = [n for n in ("model_signing", "OpenSSL") if importlib.util.find_spec(n) is None]
    if missing:
        pytest.skip("the extra onelip[signing] is not installed")
    _signed_and_verified("model_signing", folder)
    for command in commands():
        if command[:2] == ["model_signing", "sign"]:
            assert runs(command, folder)
    (verify,) = (c for c in commands() if c[:2] == ["model_signing", "verify"])
    assert runs(verify, folder)
    with (folder / "BUNDLE" / "more").open("w") as file:
        file.write("a file more")
    assert not runs(verify, folder)
