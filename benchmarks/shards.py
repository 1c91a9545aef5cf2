"""A million synthetic images certified in shards: by 1, 2 and 4 processes, and after a kill.

    python benchmarks/shards.py

Each row has wall seconds, CPU seconds of all processes, and the digest of the merged radii, which
has to be the same in every row.
"""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from harness import save

from onelip.experiments.classification import ClassificationFolder, Recipe, train

COUNT = 1_000_000
RECIPE = Recipe(
    "small",
    "two layers of 12 and 2 channels on digits",
    "digits",
    "cpl_digits",
    network={
        "conv_layers": 1,
        "channels": 2,
        "hidden_channels": 2,
        "linear_layers": 1,
        "features": 12,
    },
    batch_size=64,
    validation=150,
    epochs=3,
    threads=1,
    eps=(0.05, 0.1),
    attack_samples=0,
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        save("shards_cpu", rows(Path(name)))


def rows(folder: Path) -> Iterator[dict[str, Any]]:
    images = folder / "images.npy"
    generator = np.random.default_rng(0)
    np.save(images, generator.integers(0, 256, (COUNT, 1, 8, 8), dtype=np.uint8))
    run = ClassificationFolder.create(RECIPE, folder / "run")
    train(run, progress=False)
    command = [sys.executable, "-m", "onelip", "certify", str(run.path), f"--images={images}"]
    digests = set()
    for workers in (1, 2, 4):
        row = measured([*command, f"--shards={folder / f'by{workers}'}", f"--workers={workers}"])
        digests.add(digest(folder / f"by{workers}"))
        yield {"images": COUNT, "processes": workers, **row, "sha256": max(digests)}
    killed = folder / "killed"
    lost = kill_when_half_is_done([*command, f"--shards={killed}", "--workers=2"], killed)
    row = measured([*command, f"--shards={killed}", "--workers=2"])
    digests.add(digest(killed))
    yield {"images": COUNT, "killed after shards": lost, **row, "sha256": digest(killed)}
    assert len(digests) == 1, digests


def measured(command: list[str]) -> dict[str, Any]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.perf_counter() - start, 1), "cpu_s": round(cpu, 1)}


def kill_when_half_is_done(command: list[str], shards: Path) -> int:
    """Kill the command and its workers with SIGKILL; return how many shards there are by then."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while len(stored := [*shards.glob("0*.safetensors")]) < 30:
        time.sleep(0.05)
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
    )
    for pid in (process.pid, *map(int, found.stdout.split())):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    return len(stored)


def digest(shards: Path) -> str:
    return hashlib.sha256((shards / "radii.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
