"""Every command of ``docs/own-data.md``, on small stand-ins for the data."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onelip.cli import main
from onelip.experiments import own_code

PAGE = (Path(__file__).parents[1] / "docs" / "own-data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, text in BLOCKS
    if kind == "sh"
    for line in text.splitlines()
]
FAST = shlex.split("--size 8 --epochs 1 --batch_size 8 --attack_samples 2 --attack_steps 1 --quiet")


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_code, "_FILES", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    for kind, text in BLOCKS:
        name = re.match(r"# (\S+\.(py|yaml))\n", text)
        assert bool(name) == (kind in ("python", "yaml"))
        if name:
            Path(name[1]).write_text(text)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (24, 8, 8), dtype=np.uint8)
    for row, image in enumerate(images):
        folder = Path("photos", ("cat", "dog")[row % 2])
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).resize((9 + row, 12)).save(folder / f"{row}.png")
    Image.fromarray(images[0]).resize((30, 20)).save("new.jpg")
    np.savez("digits.npz", x=images, y=np.arange(24) % 2)
    rows = [f"{a},{b},{'good' if a > b else 'bad'}" for a, b in draw.normal(size=(24, 2))]
    Path("table.csv").write_text("\n".join(["a,b,quality", *rows]) + "\n")
    Path("new.csv").write_text("b,more,a\n0.5,x,1.5\n")


@pytest.mark.usefixtures("place")
def test_every_command(capsys):
    ran = []
    for command, *given in COMMANDS:
        words = [*given]
        assert command == "onelip"
        if any(word.startswith("hub:") for word in words):  # tests/data/test_own_data.py
            continue
        if words[0] == "train":
            images = any("photos" in word for word in words)
            words += FAST if images else FAST[2:]
        assert main(words) == 0, capsys.readouterr().err
        ran.append(words[0])
    assert sorted({*ran}) == ["attack", "certify", "predict", "prove", "recipes", "train"]
    assert ran.count("train") == 6
    assert main(["check", "photos-proof"]) == 0
