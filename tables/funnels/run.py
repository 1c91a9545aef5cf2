"""The 28 records of a critic: funnels in 2 to 128 dimensions, one setting for all.

    python tables/funnels/run.py --data FOLDER --out RUNS --max-minutes 25

Each is a run of ``onelip transport --task funnels-D-N --critic extension --fresh ...`` with
the settings below, and its ``metrics.json`` becomes ``results/CRITIC-D-N-seed0.json``. Records that
are there are left alone, and a run that was stopped goes on: call it again until nothing is left.
All 28 intervals hold together with a confidence of 95 %, by Bonferroni, for every sample size.
"""

import argparse
import math
import shutil
import time
from pathlib import Path

from onelip.experiments.transport.run import TransportRun
from onelip.experiments.transport.settings import TransportSettings
from onelip.experiments.transport.text import transport_text

HERE = Path(__file__).resolve().parent
PAIRS = [(d, n) for d in (128, 64, 32, 16, 8, 4, 2) for n in (256, 64, 16, 4)]
CONFIDENCE = 1 - 0.05 / len(PAIRS)


def main() -> None:
    """Make the records that are missing, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of funnels.npz")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the run folders")
    parser.add_argument("--critic", choices=("extension", "dense"), default="extension")
    parser.add_argument("--max-minutes", type=float, default=float("inf"), help="start no run then")
    options = parser.parse_args()
    (HERE / "results").mkdir(exist_ok=True)
    start = time.perf_counter()
    for features, count in PAIRS:  # the dearest first
        if time.perf_counter() - start < 60 * options.max_minutes:
            record(features, count, options)


def settings_for(features: int, count: int, critic: str, data: Path) -> TransportSettings:
    """Return the one setting of a critic; only the diameter of the cube changes."""
    return TransportSettings(
        task=f"funnels-{features}-{count}",
        fresh=True,
        critic=critic,
        widths=(512,) if critic == "extension" else None,
        steps=1500,
        batch=512,
        lr=0.015 if critic == "extension" else 0.01,
        samples=150_000,
        held_out=0.9,
        confidence=CONFIDENCE,
        diameter=5 * math.sqrt(features),
        threads=1,
        data=str(data),
    )


def record(features: int, count: int, options: argparse.Namespace) -> None:
    """One record, unless it is there."""
    name = f"{options.critic}-{features}-{count}-seed0"
    target, folder = HERE / "results" / f"{name}.json", options.out / f"transport-{name}"
    if target.exists():
        return
    settings = settings_for(features, count, options.critic, options.data)
    again = (folder / "metrics.json").exists()
    run = TransportRun.open(folder) if again else TransportRun.create(settings, folder)
    print(f"\n{name}\n{transport_text(run.finish(progress=False))}", flush=True)
    shutil.copy(folder / "metrics.json", target)


if __name__ == "__main__":
    main()
