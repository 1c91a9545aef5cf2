"""Which convolution for a budget? Equal processor time, certified accuracy on held-out images.

The network of ``airbench.py`` with its 3 x 3 convolutions taken from another family, trained alike
for a number of seconds of one thread, certified on 5,000 images that were not trained on.

    python families.py --data FOLDER --seconds 300 --seeds 0 1 2 --only aoc cpl

Rows are added to ``families.json`` one by one; those that are there are kept.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from airbench import block, certified, network, splits, train
from torch import nn

from onelip.models.families import CONVOLUTIONS, convolution

FILE = Path(__file__).parent / "results" / "families.json"
SLOW = ("lot", "ossn", "svcm")  # a step of seconds, or a projection


def of_family(family: str, inputs: int, outputs: int, side: int) -> list[nn.Module]:
    """A convolution of a family on this side, and an activation where none is inside."""
    size = (side, side)
    return convolution(family, inputs, outputs, 3, image_size=size, activation="half-absolute")


def row(family: str, seed: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Train and certify one network."""
    torch.manual_seed(seed)
    images, labels, others, other_labels = splits(folder, held_out=True)

    def own(inputs: int, outputs: int, side: int) -> list[nn.Module]:
        return of_family(family, inputs, outputs, side)

    model = network(block=block if family == "aoc-zeros" else own)
    found = train(model, images, labels, seconds)
    return {
        "family": family,
        "seed": seed,
        "budget": seconds,
        "training": found,
        **certified(model, others, other_labels),
    }


def main() -> None:
    """Train every family that has no row yet."""
    known = ["aoc-zeros", *(name for name in CONVOLUTIONS if name not in SLOW)]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", default=known, choices=known)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(FILE.read_text()) if FILE.exists() else []
    for seed in options.seeds:
        for family in options.only:
            settings = (family, seed, options.seconds)
            if any((r["family"], r["seed"], r["budget"]) == settings for r in rows):
                continue
            rows.append(row(family, seed, options.seconds, options.data))
            FILE.parent.mkdir(exist_ok=True)
            temporary = FILE.with_suffix(".writing")
            temporary.write_text(json.dumps(rows, indent=1) + "\n")
            temporary.replace(FILE)
            print(family, seed, rows[-1]["training"]["epochs"], rows[-1]["certified"], flush=True)


if __name__ == "__main__":
    main()
