"""Claim: the proved norm of a 3 x 3 kernel takes no longer than an SVD for each frequency.

On 32 x 32 against single-precision SVDs of half of the frequencies, which prove nothing; for every
image size against three times that. Seconds are those of the processor. ``--before`` adds the
proofs as they were, from the history.

    python benchmarks/kernel_norms.py [--before] [--once 512] 32 64 128
"""

import argparse
import itertools
import subprocess
import sys
import time
import types
from collections.abc import Callable
from typing import Any

import torch
from harness import save, summary
from torch import Tensor

from onelip import norms

BEFORE = "ac6c7b2"
CIRCULAR: dict[str, Any] = {"image_size": 32, "padding": 1, "padding_mode": "circular"}


def main() -> None:
    """One row for each number of channels."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", action="store_true")
    parser.add_argument("--once", type=int, nargs="*", default=[])
    parser.add_argument("--name", default="kernel_norms_cpu")
    parser.add_argument("channels", type=int, nargs="*")
    options = parser.parse_args()
    torch.manual_seed(0)
    rows = (_row(n, _before() if options.before else None) for n in options.channels)
    save(options.name, itertools.chain(rows, map(_once, options.once)))


def _row(channels: int, before: types.ModuleType | None) -> dict[str, Any]:
    weight = torch.randn(channels, channels, 3, 3)

    def svd() -> Tensor:
        blocks = torch.fft.rfft2(weight, (32, 32)).permute(2, 3, 0, 1)
        values: Tensor = torch.linalg.svdvals(blocks)
        return values.max()

    functions: dict[str, Callable[[], Tensor]] = {
        "svd": svd,
        "32 x 32": lambda: norms.convolution(weight, **CIRCULAR),
        "every size": lambda: norms.convolution(weight),
    }
    if before is not None:
        functions["32 x 32, before"] = lambda: before.convolution(weight, **CIRCULAR)
        functions["every size, before"] = lambda: before.convolution(weight)
    exact = float(functions["32 x 32"]())
    values = {name: float(f"{float(run()) / exact - 1:.2e}") for name, run in functions.items()}
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(1 if before is not None and channels > 100 else 5):
        for name, run in functions.items():  # in turn; of the processor, which others use, too
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {"channels": channels, "above 32 x 32": values, **summary(seconds, "svd")}


def _once(channels: int) -> dict[str, Any]:
    weight = torch.randn(channels, channels, 3, 3)
    start = time.process_time()
    bound = float(norms.convolution(weight))
    return {"channels": channels, "bound": bound, "every size, s": time.process_time() - start}


def _before() -> types.ModuleType:
    """The file on convolutions, and that on Gram kernels, as they were."""
    gram, old = types.ModuleType("old_gram_kernel"), types.ModuleType("old_convolutions")
    for module, name in ((gram, "gram_kernel"), (old, "convolutions")):
        path = f"{BEFORE}:src/onelip/norms/{name}.py"
        code = subprocess.run(["git", "show", path], capture_output=True, text=True, check=True)
        vars(module)["__name__"] = module.__name__
        sys.modules[module.__name__] = module  # where dataclasses look
        exec(code.stdout, vars(module))
    vars(old)["gram_kernel"] = gram
    return old


if __name__ == "__main__":
    main()
