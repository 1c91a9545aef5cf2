"""Claim: certificates of level float cost next to nothing, but for float32 sums of any order.

The price is what level float takes from the certified accuracy of level real, in points, and from
the radii that level real certifies: in float32, in float64, and in float32 with sums that are
accumulated in float64. Networks are trained for an epoch or two first, by ``onelip train``; a
LipConvnet-5 is taken as it is drawn, and judged on its own predictions of noise.

    python benchmarks/forward_error.py --runs FOLDER --data MNIST [--before SOURCE]

With ``--before`` the prices of another source tree are measured by the same code, for the record.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from harness import save
from torch import Tensor, nn

import onelip
from onelip.data import load
from onelip.experiments.classification import ClassificationFolder
from onelip.experiments.classification.certify import tensors_for
from onelip.models import lip_convnet
from onelip.norms.proved_once import proved_once

RECIPES = {
    "mnist": (2, 1.58),
    "bcop-small-mnist-bcop": (1, 1.58),
    "cpl-mnist": (1, 1.58),
    "digits": (10, 0.5),
}
"""Epochs, and the radius at which the price is taken."""
LIP_CONVNET, IMAGES = "lipconvnet-5, untrained", 32


def main() -> None:
    """All networks."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", help="folder of MNIST")
    parser.add_argument("--before", type=Path, help="source of another version")
    parser.add_argument("--only", help="print the prices of one network, as JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(_prices(options.only, options)))
        return
    save("forward_error_cpu", _rows(options))


def _rows(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in (*RECIPES, LIP_CONVNET):
        if name in RECIPES and not (options.runs / name / "metrics.json").exists():
            _train(name, options)
        row: dict[str, Any] = {"network": name, **_price_in_another_process(name, options)}
        if options.before:
            row["before"] = _price_in_another_process(name, options, options.before)["prices"]
        yield row


def _train(name: str, options: argparse.Namespace) -> None:
    epochs, _ = RECIPES[name]
    command = [sys.executable, "-m", "onelip", "train", name, "--epochs", str(epochs), "--quiet"]
    command += ["--attack_samples", "10", "--attack_steps", "2", "--attack_restarts", "1"]
    command += ["--data", options.data] if options.data and "mnist" in name else []
    subprocess.run([*command, "--out", str(options.runs / name)], check=True)


def _price_in_another_process(
    name: str, options: argparse.Namespace, source: Path | None = None
) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(source)} if source else None
    command = [sys.executable, __file__, "--only", name, "--runs", str(options.runs)]
    command += ["--data", options.data] if options.data else []
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@torch.no_grad()
@proved_once()
def _prices(name: str, options: argparse.Namespace) -> dict[str, Any]:
    model, x, labels, eps = _network(name, options)
    network = onelip.export(model)
    labels = network(x).argmax(1) if labels is None else labels
    prices = {"float32": _price(network, x, labels, eps)}
    if hasattr(onelip.layers, "Accumulated"):
        fine = onelip.export(model, accumulate=torch.float64)
        prices["float32, accumulated in float64"] = _price(fine, x, labels, eps)
    single = network(x[:256]).double()
    network.double()
    seen = (single - network(x[:256].double())).norm(dim=1)
    prices["float64"] = _price(network, x.double(), labels, eps)
    return {
        "samples": len(x),
        "eps": eps,
        "error_seen_float32": float(seen.max()),
        "layers": _layers(onelip.export(model), x[:64], eps),
        "prices": prices,
    }


def _network(
    name: str, options: argparse.Namespace
) -> tuple[nn.Module, Tensor, Tensor | None, float]:
    if name == LIP_CONVNET:
        torch.manual_seed(0)
        return lip_convnet((3, 32, 32), 10), torch.rand(IMAGES, 3, 32, 32), None, 36 / 255
    model = ClassificationFolder(options.runs / name).load_model()
    data = load("digits" if name == "digits" else "mnist", "test", options.data)
    return model, *tensors_for(model, data), RECIPES[name][1]


def _price(model: nn.Module, x: Tensor, labels: Tensor, eps: float) -> dict[str, float]:
    real = onelip.certify(model, x, labels)
    start = time.perf_counter()
    found = onelip.certify(model, x, labels, level="float")
    seconds = time.perf_counter() - start
    positive = real.radius > 0
    lost = (real.radius - found.radius)[positive]
    return {
        "certified_real": round(100 * real.accuracy(eps, labels), 3),
        "certified_float": round(100 * found.accuracy(eps, labels), 3),
        "points": round(100 * (real.accuracy(eps, labels) - found.accuracy(eps, labels)), 3),
        "radius_lost": float(lost.mean()) if len(lost) else math.nan,
        "of_radius": float(real.radius[positive].mean()) if len(lost) else math.nan,
        "seconds": round(seconds, 1),
    }


def _layers(model: nn.Module, x: Tensor, eps: float) -> dict[str, float]:
    """Median error bound after each part that adds some, in float32, at attacked inputs."""
    try:
        from onelip.bounds.layer_product import flattened
        from onelip.certificates.sample_errors import errors_after_parts
    except ImportError:  # of another version
        return {}
    radius, found = torch.full((len(x),), eps, dtype=torch.float64), {}
    before = 1e-30  # of inputs that may be flushed to 0
    errors = errors_after_parts(model, x, radius)
    for (name, part), error in zip(flattened(model), errors, strict=True):
        now = float(error.median())
        if now > before * (1 + 1e-6):
            found[f"{name} {type(part).__name__}"] = now
        before = now
    return found


if __name__ == "__main__":
    main()
