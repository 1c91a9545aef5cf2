"""The 30 records of this table: three layers, two activations, five seeds.

    python tables/bcop-table-4/run.py --data FOLDER --out RUNS --max-minutes 25

Each is a run of ``onelip transport mnist tables/bcop-table-4 --layer L --activation A --seed S``
with the settings below, and its ``metrics.json`` becomes ``results/L-A-seedS.json``. Records that
are there are left alone, and a run that was stopped goes on: call it again until nothing is left.
"""

import argparse
import shutil
import time
from pathlib import Path

from onelip.experiments.transport.run import TransportRun
from onelip.experiments.transport.settings import TransportSettings
from onelip.experiments.transport.text import transport_text

HERE = Path(__file__).resolve().parent
LAYERS, ACTIVATIONS, SEEDS = ("bcop", "rko", "ossn"), ("max-min", "relu"), tuple(range(5))


def main() -> None:
    """Make the records that are missing, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST; else it is downloaded")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--samples", type=int, default=60000, help="half of them are held out")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--exact", action="store_true", help="the exact distances of seed 0 too")
    parser.add_argument("--max-minutes", type=float, default=float("inf"), help="start no run then")
    options = parser.parse_args()
    (HERE / "results").mkdir(exist_ok=True)
    start = time.perf_counter()
    for seed in options.seeds:
        for layer in LAYERS:
            for activation in ACTIVATIONS:
                if time.perf_counter() - start < 60 * options.max_minutes:
                    record(layer, activation, seed, options)


def record(layer: str, activation: str, seed: int, options: argparse.Namespace) -> None:
    """One record, unless it is there."""
    name = f"{layer}-{activation}-seed{seed}"
    target, folder = HERE / "results" / f"{name}.json", options.out / f"transport-{name}"
    if target.exists():
        return
    settings = TransportSettings(
        p="mnist",
        q=str(HERE.relative_to(Path.cwd()) if HERE.is_relative_to(Path.cwd()) else HERE),
        critic="dcgan",
        layer=layer,
        activation=activation,
        steps=options.steps,
        batch=options.batch,
        lr=options.lr,
        samples=options.samples,
        exact=options.exact and seed == 0,
        seed=seed,
        threads=1,
        data=str(options.data) if options.data else None,
    )
    again = (folder / "metrics.json").exists()
    run = TransportRun.open(folder) if again else TransportRun.create(settings, folder)
    print(f"\n{name}\n{transport_text(run.finish(progress=False))}", flush=True)
    shutil.copy(folder / "metrics.json", target)


if __name__ == "__main__":
    main()
