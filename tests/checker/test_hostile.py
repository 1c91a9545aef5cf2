"""Bundles of a few kilobytes that ask for days, gigabytes, or lines of their own in the output."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onelip.checker import check

SOURCE = Path(check.__file__).parent / "go"
HUGE = "0x1p+1000"
SECONDS = 20
"""What a bundle below may take here; without limits each takes minutes to days, or gigabytes."""


def conv(weight: str, witness: str, **changes: Any) -> dict[str, Any]:
    """A record of a convolution."""
    usual = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    record = {"map": "convolution", "norm": "0x1.1p+0", "weight": weight, "bias": None}
    return record | usual | {"circular": False, "witness": witness} | changes


def proof(shape: list[int], last: list[Any], **changes: Any) -> dict[str, Any]:
    """A record of maps one after the other."""
    network = {"blocks": changes.pop("blocks", []), "last": last, "method": None}
    kind = {"format": "onelip proof", "version": 1, "level": "real", "about": ""}
    return kind | {"input": shape, "network": network, "bound": HUGE, "samples": None} | changes


def write(folder: Path, record: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """A bundle of these tensors, with a digest unless there is one."""
    folder.mkdir(exist_ok=True)
    header, body = {}, b""
    for name, a in tensors.items():
        kind = {"f8": "F64", "f4": "F32", "i8": "I64"}[a.dtype.str[1:]]
        end = len(body) + a.nbytes
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [len(body), end]}
        body += a.tobytes()
    text = json.dumps(header).encode()
    data = len(text).to_bytes(8, "little") + text + body
    (folder / "tensors.safetensors").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    files = {"tensors.safetensors": digest} | record.get("files", {})
    (folder / "proof.json").write_text(json.dumps(record | {"files": files}))
    return folder


ONE, SAMPLES = np.ones((1, 1, 1, 1)), np.ones((16, 1, 1, 1))
RADII = {"inputs": "s", "predictions": [0] * 16, "radii": ["0x1p-900"] * 16, "head": "network"}
SAME = {"map": "take", "norm": "0x1p+0", "index": None}
WIDE = {"map": "adjoint", "norm": "0x1.1p+0", "bias": None}
SKEW = {"map": "exponential", "norm": "0x1.0000001p+0", "terms": 64}
POOL = {"kind": "max-pool", "size": [512, 512], "stride": [1, 1]}


def _wide(side: int) -> dict[str, Any]:
    """One number to an image."""
    return WIDE | {"of": conv("w", "kernel", stride=[side, side]), "inputs": [1, side, side]}


ONE_NUMBER = SAME | {"index": "i", "outputs": [1]}


def _activated(side: int, **activation: Any) -> dict[str, Any]:
    """One number to images with this side, two channels, and an activation."""
    of = conv("pair", "kernel", norm="0x1.8p+0", stride=[side, side])
    inner = [WIDE | {"of": of, "inputs": [2, side, side], "norm": "0x1.8p+0"}]
    block = {"inner": inner, "activation": activation, "outer": [], "skip": None}
    blocks = [block | {"bound": "0x1p+60"}]
    return proof([1, 1, 1], [ONE_NUMBER], blocks=blocks, samples=RADII)


BUNDLES = {
    "a layer without end": proof([1 << 26], [SAME | {"outputs": [1 << 26]}] * 100),
    "an image from one number": proof([1, 1, 1], [_wide(8192)] * 2, samples=RADII),
    "a padded image": proof(
        [1, 1, 1], [conv("w", "kernel", padding=[4090, 4090])] * 2, samples=RADII
    ),
    "a stride of the torus": proof([1, 1, 1], [conv("w", "torus", stride=[4096, 4096])]),
    "windows": proof(
        [1, 1, 1],
        [ONE_NUMBER],
        blocks=[
            {
                "inner": [_wide(1024)],
                "activation": POOL,
                "outer": [],
                "skip": None,
                "bound": "0x1p+60",
            }
        ],
        samples=RADII,
    ),
    "frequencies": proof([64, 500, 500], [conv("k", "torus", norm="0x1p+5")] * 9),
    "powers of a tiny number": proof(
        [1, 1, 1], [SKEW | {"of": conv("z", "matrix", norm="0x1.fffffffffffffp-900")}] * 9
    ),
    "rows apart": proof(
        [1],
        [{"map": "dense", "norm": "0x1p+8", "weight": "rows", "bias": None}],
        samples=RADII | {"inputs": "x", "head": "pairs"},
    ),
    "knots": _activated(
        256, kind="piecewise", knots="knots", slopes="slopes", bends="bends", value="v"
    ),
    "numbers of a smooth activation": _activated(256, kind="gelu"),
    "scales": _activated(256, kind="scaled", of="gelu", inner="v", above="v", below="v"),
    "folds": _activated(256, kind="fold", rays="angles", peaks="angles"),
    "corners": _activated(256, kind="polygon", corners="corners"),
    "angles": proof(
        [400000],
        [],
        blocks=[
            {
                "inner": [],
                "activation": {"kind": "fold", "rays": "many", "peaks": "many"},
                "outer": [],
                "skip": None,
                "bound": "0x1p+60",
            }
        ],
    ),
    "blocks of frequencies": proof(
        [1, 256, 256],
        [{"map": "fourier", "norm": "0x1p+9", "weight": "blocks", "bias": None}] * 9,
    ),
    "transforms": proof(
        [1, 1, 1],
        [
            _wide(256),
            {"map": "fourier", "norm": "0x1p+9", "weight": "blocks", "bias": None},
            ONE_NUMBER,
        ],
        samples=RADII,
    ),
    "smaller and smaller": proof(
        [1],
        [{"map": "scale", "norm": "0x1.8p-1000", "factor": "tiny", "shift": None}] * 9000,
        samples=RADII | {"inputs": "x"},
    ),
}
TENSORS = {
    "w": ONE,
    "z": 0 * ONE,
    "k": np.random.default_rng(0).standard_normal((64, 64, 1, 1)).astype(np.float32),
    "s": SAMPLES,
    "x": SAMPLES.reshape(16, 1),
    "rows": np.arange(8000.0)[:, None] / 1e6,
    "tiny": np.array(1e-305),
    "i": np.zeros(1, np.int64),
    "pair": np.ones((1, 2, 1, 1)),
    "knots": np.arange(4096.0),
    "slopes": np.ones(4097),
    "bends": np.ones(4095),
    "v": np.array(1.0),
    "angles": np.ones((500, 1)),
    "many": np.ones((1, 200000), np.float32),
    "corners": np.ones((5000, 2, 1)),
    "blocks": np.ones((256, 129, 1, 1, 2), np.float32),
}


def bundle(folder: Path, name: str) -> Path:
    """One of these, with the tensors that it names: each byte of them allows more work."""
    text = json.dumps(BUNDLES[name])
    return write(folder, BUNDLES[name], {k: a for k, a in TENSORS.items() if f'"{k}"' in text})


@pytest.fixture(scope="module")
def go(tmp_path_factory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("no go here: the checker in Go is not tried")
    program = tmp_path_factory.mktemp("go") / "onelip-check"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=SOURCE, check=True)
    return program


@pytest.mark.parametrize("name", BUNDLES)
def test_a_small_bundle_asks_for_little_time_and_memory(
    name: str, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(check, "WORK", 1 << 35)  # seconds for what is allowed to take minutes
    folder = bundle(tmp_path, name)
    tracemalloc.start()
    start = time.process_time()
    check.main([str(folder)])
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < SECONDS
    assert peak < 4 << 30
    assert "VALID" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", [name for name in BUNDLES if name not in ("frequencies", "windows", "corners")]
)
def test_the_same_in_go(name: str, go, tmp_path) -> None:
    """Three more end after minutes: the work that is allowed is a constant there."""
    folder = bundle(tmp_path, name)
    done = subprocess.run(
        [go, folder], check=False, capture_output=True, text=True, timeout=3 * SECONDS
    )
    assert done.returncode in (0, 1)
    assert not done.stderr
    assert "cannot go on" not in done.stdout


def test_more_work_is_for_those_who_ask(tmp_path, monkeypatch, capsys) -> None:
    record = proof([64, 30, 30], [conv("k", "torus", norm="0x1p+5")])
    folder = write(tmp_path, record, {"k": TENSORS["k"]})
    monkeypatch.setattr(check, "WORK", 1 << 30)
    assert check.main([str(folder)]) == 1
    assert "more work than is allowed" in capsys.readouterr().out
    assert check.main([str(folder), "1000"]) == 0
    for wrong in ("0", "-1", "1.5", "x"):
        assert check.main([str(folder), wrong]) == 2


@pytest.mark.parametrize(
    "text",
    [
        "0x1.fffffffffffffffp-1",  # nearly 1, which float64 would make of it
        "0x1.00000000000001p+0",
        "0x1p-1075",
        "0x1.8",
        " 0x1p+0",
        "0x1p+0\n",
        "+0x1p+0",
        "-0x0p+0",
        "0x1p+1024",
        "0x1p+99999",
    ],
)
def test_a_claim_is_what_stands_there(text: str) -> None:
    """No number is rounded: it would be the reader, not the checker, who believes another one."""
    with pytest.raises(check.Invalid, match="no number"):
        check.number(text)
    assert check.number("0x1.8p+1") == 3
    assert check.number("0x0.0000000000001p-1022") == check.two(-1074)


@pytest.mark.parametrize("name", ["x\nVALID\nx", "\x1b[2JVALID", "\ud800", "\u202evalid"])
def test_names_write_no_lines_of_their_own(name: str, go, tmp_path) -> None:
    """Neither lines nor escapes for terminals, and what has no bytes ends in no traceback."""
    for record in (
        proof([1], [{"map": "dense", "norm": "0x1p+0", "weight": name, "bias": None}]),
        proof([1], [], files={name: "0" * 64}),
        proof([1], [{"map": name}]),
        proof([1], [], more={name: 1}) | {name: 1},
    ):
        folder = write(tmp_path / "bundle", record, {"x": np.ones(1)})
        for program in ([sys.executable, check.__file__], [str(go)]):
            done = subprocess.run([*program, str(folder)], check=False, capture_output=True)
            assert (done.returncode, done.stderr) == (1, b"")
            (line,) = done.stdout.splitlines()
            assert line.startswith(b"INVALID: ")
            assert all(32 <= byte < 127 for byte in line)
