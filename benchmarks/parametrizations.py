"""Claim: a training step takes no longer than with torch's spectral_norm and orthogonal.

Forward, backward and a step of SGD, for single layers. Torch's ``spectral_norm`` of a convolution
divides by the norm of a reshaped kernel; ``OSSNConv2d``, with one power iteration, by that of the
map on one size of images. Seconds are those of the processor.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from harness import save, summary
from torch import nn
from torch.nn.utils import parametrizations

from onelip import layers, parametrize

CASES: list[tuple[str, Callable[[], nn.Module], tuple[int, ...]]] = [
    ("Linear 512 to 512, 64 samples", lambda: nn.Linear(512, 512), (64, 512)),
    ("Linear 2048 to 2048, 64 samples", lambda: nn.Linear(2048, 2048), (64, 2048)),
    ("Conv2d 32, 16 x 16, 32 images", lambda: nn.Conv2d(32, 32, 3, padding=1), (32, 32, 16, 16)),
    ("Conv2d 64, 32 x 32, 16 images", lambda: nn.Conv2d(64, 64, 3, padding=1), (16, 64, 32, 32)),
]


def main() -> None:
    """One row for each layer."""
    torch.manual_seed(0)
    save("parametrizations_cpu", [_row(*case) for case in CASES])


def _row(name: str, build: Callable[[], nn.Module], shape: tuple[int, ...]) -> dict[str, Any]:
    candidates = {
        "plain": build(),
        "torch spectral_norm": parametrizations.spectral_norm(build()),
        "lipschitz": parametrize.lipschitz(build()),
        "orthogonal": parametrize.orthogonal(build()),
    }
    if len(shape) == 2 and shape[1] <= 512:
        candidates["torch orthogonal"] = parametrizations.orthogonal(build())
    if len(shape) == 4:
        candidates["OSSN, 1 iteration"] = layers.OSSNConv2d(
            shape[1], shape[1], 3, image_size=shape[2], iterations=1
        )
    steps = {name: _step(module, shape) for name, module in candidates.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(8):
        for which, step in steps.items():
            start = time.process_time()
            step()
            if turn:
                seconds[which].append(time.process_time() - start)
    return {"layer": name, **summary(seconds, "plain")}


def _step(module: nn.Module, shape: tuple[int, ...]) -> Callable[[], None]:
    optimiser = torch.optim.SGD(module.parameters(), lr=1e-3)
    x = torch.randn(shape)

    def step() -> None:
        optimiser.zero_grad()
        module(x).square().mean().backward()
        optimiser.step()

    return step


if __name__ == "__main__":
    main()
