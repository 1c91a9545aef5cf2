"""Claim: an exported network runs like a plain network of the same shape.

Convex Potential networks, and four layers of every family that has a kernel; those that keep a
spectrum or a series are measured beside them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from harness import alternate, save, summary
from torch import nn
from training_step import PlainConv, PlainLinear

from onelip import export
from onelip.layers import ConvexPotentialConv2d, ConvexPotentialLinear, MaxMin
from onelip.models import families

_RESIDUAL = ("cpl", "sll")
_ROUNDS = 15


def main() -> None:
    """Convolutional and dense networks."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    save(f"inference_{device}", _rows(device))


def _rows(device: str) -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    for channels, hidden, side in ((45, 5, 32), (32, 32, 16)):
        models = {
            "plain": nn.Sequential(*(PlainConv(channels, hidden) for _ in range(6))),
            "cpl": nn.Sequential(
                *(ConvexPotentialConv2d(channels, hidden, image_size=side) for _ in range(6))
            ),
        }
        what = f"6 conv blocks, {channels} channels, inner {hidden}, {side} x {side}"
        yield _row(what, models, torch.rand(64, channels, side, side, device=device))
    models = {
        "plain": nn.Sequential(*(PlainLinear(784, 512) for _ in range(12))),
        "cpl": nn.Sequential(*(ConvexPotentialLinear(784, 512) for _ in range(12))),
    }
    yield _row("12 dense blocks, 784, inner 512", models, torch.rand(256, 784, device=device))
    for padding in ("circular", "zeros"):
        plain = _layers(lambda p=padding: [nn.Conv2d(32, 32, 3, padding=1, padding_mode=p)])
        ours = {
            family: _layers(
                lambda f=family: families.convolution(f, 32, 32, 3, image_size=(16, 16))
            )
            for family in families.CONVOLUTIONS
            if family not in _RESIDUAL
        }
        mode = {name: _padding_mode(model) for name, model in ours.items()}
        same = {name: model for name, model in ours.items() if mode[name] == padding}
        what = f"4 layers, 32 channels, 16 x 16, {padding}"
        yield _row(what, {"plain": plain, **same}, torch.rand(64, 32, 16, 16, device=device))


def _layers(build: Any) -> nn.Sequential:
    return nn.Sequential(*(part for _ in range(4) for part in (*build(), MaxMin())))


def _padding_mode(model: nn.Sequential) -> str:
    found: str = getattr(model[0], "padding_mode", "circular")
    return found


def _row(what: str, models: Mapping[str, nn.Module], x: torch.Tensor) -> dict[str, Any]:
    calls = {}
    for name, model in models.items():
        ready = model.eval() if name == "plain" else export(model)
        calls[name] = _call(ready.to(x.device), x)
    seconds = alternate(calls, rounds=_ROUNDS)
    return {"network": what, "batch": len(x), **summary(seconds, "plain")}


def _call(model: nn.Module, x: torch.Tensor) -> Any:
    def run() -> None:
        with torch.inference_mode():
            model(x)

    return run


if __name__ == "__main__":
    main()
