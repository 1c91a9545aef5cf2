"""Claim: bundles at level float cost little of the radius, and next to nothing with float64 sums.

Each network is proved at level real and at level float: in float32, in float32 with sums of linear
layers in float64, and in float64. Networks are trained for an epoch or two first, as those of
``forward_error.py``; a LipConvnet-5 is taken as it is drawn, without its ``Normalize``, whose mean
and std level float does not know. A price of null is a network that level float refuses.

    python benchmarks/proofs_float.py --runs FOLDER --data MNIST [NETWORK ...]
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from forward_error import RECIPES, _train
from harness import save
from torch import Tensor, nn

import onelip
from onelip.checker import check
from onelip.data import load
from onelip.errors import NotApplicableError
from onelip.experiments.classification import ClassificationFolder
from onelip.experiments.classification.certify import tensors_for
from onelip.models import lip_convnet

DRAWN = "lipconvnet-5, untrained, without Normalize"
SAMPLES = {DRAWN: 4}
"""Samples of a bundle, 50 where nothing is said."""


def main() -> None:
    """All networks, or those that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="of networks")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--data", help="folder of MNIST")
    options = parser.parse_args()
    names = [name for name in (*RECIPES, DRAWN) if name in (options.names or (*RECIPES, DRAWN))]
    save("proofs_float_cpu", _rows(names, options))


def _rows(names: list[str], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for name in names:
        if name != DRAWN and not (options.runs / name / "metrics.json").exists():
            _train(name, options)
        model, x = _network(name, options)
        network = onelip.export(model)
        wide = onelip.export(model, accumulate=torch.float64)
        ways = {
            "real": _price(network, x, "real"),
            "float32": _price(network, x, "float"),
            "float32, accumulated in float64": _price(wide, x, "float"),
            "float64": _price(network.double(), x.double(), "float"),
        }
        yield {"network": name, "epochs": RECIPES.get(name, (0,))[0], "samples": len(x)} | ways


def _network(name: str, options: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    count = SAMPLES.get(name, 50)
    if name == DRAWN:
        torch.manual_seed(0)
        return lip_convnet((3, 32, 32), 10)[1:].eval(), torch.rand(count, 3, 32, 32)
    model = ClassificationFolder(options.runs / name).load_model()
    data = load("digits" if name == "digits" else "mnist", "test", options.data)
    return model, tensors_for(model, data)[0][:count]


def _price(model: nn.Module, x: Tensor, level: str) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        try:
            record = onelip.prove(model, Path(folder) / "bundle", x, level=level)
        except NotApplicableError:
            return None
        proved = time.process_time() - start
        start = time.process_time()
        check.check(Path(folder) / "bundle", say=lambda _: None)
        radii = sorted(float.fromhex(radius) for radius in record["samples"]["radii"])
        return {
            "median_radius": radii[len(radii) // 2],
            "mean_radius": sum(radii) / len(radii),
            "seconds": {
                "prove": round(proved, 2),
                "check.py": round(time.process_time() - start, 2),
            },
        }


if __name__ == "__main__":
    main()
