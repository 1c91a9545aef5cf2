"""Claim: bundles of every kind of model are checked within seconds to minutes on one core.

Each network is proved with random images, and checked by ``check.py`` and by the checker in Go, if
it was built (``make checker``). Weights are random: seconds do not depend on them.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from harness import save
from torch import nn

from onelip import prove
from onelip.checker import check
from onelip.experiments.classification.build import build_model
from onelip.experiments.recipes import RECIPES
from onelip.image_sets import SHAPES

GO = Path(__file__).parents[1] / "build" / "onelip-check"

NETWORKS = {
    "digits": 100,
    "mnist": 100,
    "cpl-mnist": 100,
    "bcop-fc3-mnist": 100,
    "bcop-small-mnist-bcop": 20,
    "bcop-large-mnist-rko": 20,
    "crm-mnist": 20,
    "lipconvnet-5-cifar10-fast": 10,
    "bcop-large-cifar10-bcop": 10,
    "crm-cifar10": 10,
    "cpl-s-cifar10": 10,
    "lipconvnet-15-cifar10-fast": 10,
}
"""Recipes, and how many images each bundle certifies."""


def main() -> None:
    """Every network, or those that are named."""
    save("proofs_cpu", _rows([name for name in NETWORKS if name in (sys.argv[1:] or NETWORKS)]))


def _rows(names: list[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        torch.manual_seed(0)
        recipe = RECIPES[name]
        shape, _ = SHAPES[recipe.dataset]
        x = torch.rand(NETWORKS[name], *shape)
        yield {"network": name} | _row(build_model(recipe).eval(), x)


def _row(model: nn.Module, x: torch.Tensor) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        start = time.process_time()
        record = prove(model, bundle, x)
        proved = time.process_time() - start
        start = time.process_time()
        check.check(bundle, say=lambda _: None)
        checked = time.process_time() - start
        row: dict[str, Any] = {
            "samples": len(x),
            "megabytes": round(sum(f.stat().st_size for f in bundle.iterdir()) / 1e6, 1),
            "bound": float.fromhex(record["bound"]),
            "seconds": {"prove": round(proved, 2), "check.py": round(checked, 2)},
        }
        if GO.exists():
            start = time.perf_counter()
            subprocess.run([GO, bundle], check=True, capture_output=True)  # 1 if it is INVALID
            row["seconds"]["go, wall time"] = round(time.perf_counter() - start, 2)
        return row


if __name__ == "__main__":
    main()
