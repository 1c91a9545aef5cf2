"""Question: do the power steps of equal layers gain from one batched call?

Each layer's own step, one after the other, against one batched product (dense, written here) or one
grouped convolution (the library's) for all of them. Stacking the weights is part of the batched
call, since the weights change in every training step.
"""

from collections.abc import Callable
from typing import Any

import torch
from harness import alternate, save, summary
from torch.nn import functional as F

from onelip.layers import ConvexPotentialConv2d, ConvexPotentialLinear


def main() -> None:
    """The blocks of CPL-S, and smaller ones."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [_dense(24, 784, 256, device), _dense(7, 2880, 2048, device)]
    rows += [_convolution(20, 45, 5, 32, device), _convolution(20, 16, 16, 8, device)]
    save(f"power_step_{device}", rows)


def _dense(count: int, features: int, hidden: int, device: str) -> dict[str, Any]:
    layers = [ConvexPotentialLinear(features, hidden).to(device) for _ in range(count)]

    def batched() -> None:
        weight = torch.stack([layer.weight.detach() for layer in layers])
        u = torch.stack([layer.direction for layer in layers])[..., None]
        v = F.normalize(weight @ u, dim=1)
        moved = F.normalize(weight.mT @ v, dim=1)
        for layer, direction in zip(layers, moved.squeeze(-1), strict=True):
            layer.direction.copy_(direction)

    return _row(f"{count} dense layers, {features}, inner {hidden}", layers, batched)


def _convolution(count: int, channels: int, hidden: int, size: int, device: str) -> dict[str, Any]:
    layers = [
        ConvexPotentialConv2d(channels, hidden, image_size=size).to(device) for _ in range(count)
    ]

    def batched() -> None:
        layers[0].advance_together(layers)

    what = f"{count} convolutions, {channels} channels, inner {hidden}, {size} x {size}"
    return _row(what, layers, batched)


def _row(what: str, layers: list[Any], batched: Callable[[], None]) -> dict[str, Any]:
    def one_by_one() -> None:
        for layer in layers:
            layer.advance()

    seconds = alternate({"one by one": one_by_one, "batched": batched}, rounds=15)
    return {"layers": what, **summary(seconds, "one by one")}


if __name__ == "__main__":
    main()
