"""Claim: norms of a batch of matrices, each proved, take 0.7 to 1.8 times their SVDs.

Against ``torch.linalg.svdvals`` in the same precision, which proves nothing. Seconds are those of
the processor.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from harness import save, summary

from onelip.norms.batched import each

SHAPES = [
    (1000, 4, 4),
    (1000, 8, 8),
    (300, 16, 16),
    (300, 32, 32),
    (100, 64, 64),
    (100, 64, 16),
    (200, 10, 100),
    (30, 128, 128),
    (8, 256, 256),
]


def main() -> None:
    """One row for each shape."""
    torch.manual_seed(0)
    save("batched_norms_cpu", map(_row, SHAPES))


def _row(shape: tuple[int, int, int]) -> dict[str, Any]:
    matrices = torch.randn(shape, dtype=torch.float64)
    runs: dict[str, Callable[[], torch.Tensor]] = {
        "svdvals": lambda: torch.linalg.svdvals(matrices),
        "proved": lambda: each(matrices),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(12):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:
                seconds[name].append(time.process_time() - start)
    return {"batch, rows, columns": shape, **summary(seconds, "svdvals")}


if __name__ == "__main__":
    main()
