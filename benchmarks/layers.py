"""Claim: a training step with any layer family costs little more than one with plain convolutions.

Networks of four layers of equal shape, circular padding, MaxMin between them, forward, backward and
an Adam step: every family, orthogonium's and deel-torchlip's layers where they have the family, and
BCOP as Algorithm 1 is printed (``naive``: formed projectors, loops over taps, Bjorck's iteration
for each matrix). Growth with channels and with the image's side is fitted from the same rows.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from harness import alternate, save, summary, without_slow
from naive import NaiveBCOPConv2d
from torch import nn

from onelip.layers import MaxMin, computed_once
from onelip.models import families

_LAYERS = 4
_BATCH = 128
_SECONDS = 3.0  # a family slower than this per step is measured once and reported as such

Build = Callable[[int, int], nn.Module]


def _ours(family: str) -> Build:
    def build(channels: int, side: int) -> nn.Module:
        size = (side, side)
        return nn.Sequential(*families.convolution(family, channels, channels, 3, image_size=size))

    return build


def _plain(channels: int, side: int) -> nn.Module:  # noqa: ARG001
    return nn.Conv2d(channels, channels, 3, padding="same", padding_mode="circular")


def _orthogonium(channels: int, side: int) -> nn.Module:  # noqa: ARG001
    from orthogonium.layers import AdaptiveOrthoConv2d

    layer: nn.Module = AdaptiveOrthoConv2d(channels, channels, 3, padding_mode="circular")
    return layer


def _deel(channels: int, side: int) -> nn.Module:  # noqa: ARG001
    from deel.torchlip import SpectralConv2d

    layer: nn.Module = SpectralConv2d(channels, channels, 3, padding=1, padding_mode="circular")
    return layer


KINDS: dict[str, Build] = {
    "plain": _plain,
    **{f"onelip {name}": _ours(name) for name in families.CONVOLUTIONS},
    "orthogonium aoc": _orthogonium,
    "deel-torchlip spectral": _deel,
    "naive bcop": NaiveBCOPConv2d,
}

SHAPES = {
    "cpu": ((32, 16), (64, 16), (128, 16), (32, 32)),
    "cuda": tuple((channels, side) for side in (16, 32) for channels in (32, 64, 128, 256)),
}


def main() -> None:
    """All shapes, or those named on the command line as CHANNELSxSIDE."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = [word.split("x") for word in sys.argv[1:]]
    shapes = [(int(channels), int(side)) for channels, side in wanted] or SHAPES[device]
    save(f"layers_{device}", _rows(shapes, device))


def _rows(shapes: Sequence[tuple[int, int]], device: str) -> Iterator[dict[str, Any]]:
    rows = []
    for channels, side in shapes:
        rows.append(_row(channels, side, device))
        yield rows[-1]
    yield from _growth(rows)


def _row(channels: int, side: int, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    x = torch.rand(_BATCH, channels, side, side, device=device)
    steps, slow = without_slow({name: _step(build, x) for name, build in KINDS.items()}, _SECONDS)
    times = alternate(steps, rounds=7, warm_up=0)
    row = {"channels": channels, "side": side, "batch": _BATCH, **summary(times, "plain")}
    row |= {"one_step_ms": slow} if slow else {}
    return row


def _step(build: Build, x: torch.Tensor) -> Callable[[], None]:
    _, channels, side, _ = x.shape
    parts = [part for _ in range(_LAYERS) for part in (build(channels, side), MaxMin())]
    model = nn.Sequential(*parts).to(x.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with computed_once(model):
            loss = model(x).square().mean()
        loss.backward()
        optimizer.step()

    return step


def _growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exponents p of time ~ channels^p at one side, and ~ side^p at one number of channels."""
    found = []
    for fixed, varied in (("side", "channels"), ("channels", "side")):
        for value in sorted({row[fixed] for row in rows}):
            group = [row for row in rows if row[fixed] == value]
            if len(group) > 1:
                names = set.intersection(*(set(row["median_ms"]) for row in group))
                exponents = {
                    name: round(_slope([(r[varied], r["median_ms"][name]) for r in group]), 2)
                    for name in sorted(names)
                }
                found.append({"exponent_of": varied, fixed: value, **exponents})
    return found


def _slope(points: list[tuple[float, float]]) -> float:
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    above: float = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    below: float = sum((x - mean_x) ** 2 for x, _ in logs)
    return above / below


if __name__ == "__main__":
    main()
