"""Runs for tests of reports: a network on images whose classes have hostile names."""

import json
import shutil
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from onelip.cli import main

CLASSES = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "plain & 'quiet'",
)
"""Names of classes, sorted as runs sort them by themselves."""


def train(folder: Path) -> Path:
    """Train a small network for some epochs on images of three kinds, and return its run."""
    draw = np.random.default_rng(0)
    names = sorted(CLASSES)
    splits = {}
    for split, count in (("train", 90), ("test", 60)):
        label = draw.integers(0, 3, count)
        images = draw.uniform(0, 0.4, (count, 6, 6))
        for row, kind in enumerate(label):
            images[row, 2 * kind : 2 * kind + 2] += 0.5
        splits |= {f"x_{split}": (255 * images).astype(np.uint8)}
        splits |= {f"y_{split}": np.array([names[kind] for kind in label])}
    np.savez(folder / "data.npz", **splits)
    network = (
        "--network.conv_layers 1 --network.channels 4 --network.hidden_channels 4 "
        "--network.linear_layers 1 --network.features 16"
    )
    options = (
        "--epochs 4 --batch_size 30 --lr 5e-3 --eps [0.1,0.3,0.5] --validation 9 "
        "--attack_samples 40 --attack_steps 5 --threads 1 --quiet"
    )
    words = ["train", "digits", "--data", str(folder / "data.npz")]
    words += [*network.split(), *options.split()]
    assert main([*words, "--out", str(folder / "run")]) == 0
    return folder / "run"


def altered(run: Path, path: Path, *, seed: int = 0, samples: int | None = None, scale=1.0) -> Path:
    """Copy a run with another seed and radii, and a record that says what they say."""
    shutil.copytree(run, path)
    stored = safetensors.torch.load_file(path / "certificates.safetensors")
    count = samples or len(stored["labels"])
    draw = torch.Generator().manual_seed(seed)
    rows = torch.arange(count) % len(stored["labels"])
    stored = {name: values[rows].clone() for name, values in stored.items()}
    if seed:
        stored["radius"] *= torch.rand(count, generator=draw, dtype=torch.float64)
    stored["radius"] *= scale
    safetensors.torch.save_file(stored, path / "certificates.safetensors")
    record = json.loads((path / "metrics.json").read_text())
    record["recipe"]["seed"] = seed
    right = stored["prediction"] == stored["labels"]
    test = record["certify"]["test"]
    test["samples"], test["clean"] = count, float(right.double().mean())
    for eps in test["certified"]:
        certified = right & (stored["radius"] > float(eps))
        test["certified"][eps] = float(certified.double().mean())
    (path / "metrics.json").write_text(json.dumps(record))
    return path
