"""Train and certify a recipe of any table in one call.

    python tables/run.py --recipe lipconvnet-5-cifar10-fast --data FOLDER --out RUN --max-minutes 25

A second call with the same ``--out`` goes on from the last epoch; each ends with the certified
accuracy so far. It needs lightning, pyarrow and
pillow; with foolbox it attacks too, and it uses neither jsonargparse nor a network. The record is
``RUN/metrics.json``.
"""

import argparse
import dataclasses
import importlib.util
from pathlib import Path

import torch

from onelip.experiments.classification import (
    ClassificationFolder,
    attack_run,
    certify_run,
    table,
    train,
)
from onelip.experiments.recipes import RECIPES


def main() -> None:
    """Train, or go on; certify what there is when the time is over."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="cpl-s-cifar10", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--max-minutes", type=float)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--validation", type=int, default=5000)
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")  # in training; certificates switch it off
    if (options.out / "metrics.json").exists():
        run = ClassificationFolder.open(options.out)
    else:
        changed = {k: getattr(options, k) for k in ("epochs", "validation", "precision", "compile")}
        recipe = dataclasses.replace(RECIPES[options.recipe], **changed)
        run = ClassificationFolder.create(recipe, options.out)
    complete = train(run, data=options.data, max_minutes=options.max_minutes, progress=False)
    certified = certify_run(run, options.data)
    if complete and importlib.util.find_spec("foolbox"):
        attack_run(run, options.data, certified=certified)
    print(table(run.read()))


if __name__ == "__main__":
    main()
