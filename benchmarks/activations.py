"""Forward and backward pass of sorting activations against ReLU, by memory format and type.

python activations.py
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import alternate, save, summary
from torch import Tensor, nn

from onelip import layers

SHAPES = ((128, 32, 16, 16), (128, 64, 16, 16), (128, 128, 8, 8))


def step(module: nn.Module, x: Tensor, gradient: Tensor) -> Callable[[], object]:
    """One forward and one backward pass."""

    def both() -> None:
        torch.autograd.backward(module(x), gradient)

    return both


def rows() -> Iterator[dict[str, Any]]:
    """Time every activation on every kind of input."""
    for shape in SHAPES:
        for layout in (torch.contiguous_format, torch.channels_last):
            for dtype in (torch.float32, torch.bfloat16):
                x = torch.randn(shape, dtype=dtype).contiguous(memory_format=layout)
                gradient = torch.randn_like(x)
                x.requires_grad_()
                modules: dict[str, nn.Module] = {
                    "relu": nn.ReLU(),
                    "abs": layers.Abs(),
                    "half-absolute": layers.HalfAbs(shape[1]),
                    "max-min": layers.MaxMin(),
                }
                times = alternate({k: step(m, x, gradient) for k, m in modules.items()}, rounds=21)
                yield {
                    "shape": shape,
                    "memory_format": str(layout).removeprefix("torch."),
                    "dtype": str(dtype).removeprefix("torch."),
                    **summary(times, "relu"),
                }


if __name__ == "__main__":
    torch.set_num_threads(1)
    save("activations_cpu", rows())
