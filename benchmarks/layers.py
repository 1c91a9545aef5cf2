"""Claim: a training step with any layer family costs little more than one with plain convolutions.

Networks of a few layers of equal shape with MaxMin between them, forward, backward and an Adam
step: every family, orthogonium's and deel-torchlip's layers where they have the family, and
BCOP as Algorithm 1 is printed (``naive``: formed projectors, loops over taps, Bjorck's iteration
for each matrix). Growth with channels, with the image's side and with depth is fitted from the
same rows.
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

Shape = tuple[int, int, int]
"""Channels, side of the image, layers."""

SHAPES: dict[str, tuple[Shape, ...]] = {
    "cpu": ((32, 16, 4), (64, 16, 4), (32, 32, 4), (32, 16, 2), (32, 16, 8), (128, 16, 4)),
    "cuda": (
        *((channels, side, 4) for side in (16, 32) for channels in (32, 64, 128, 256)),
        (64, 16, 8),
        (64, 16, 16),
    ),
}


def main() -> None:
    """All shapes, or those named on the command line as CHANNELSxSIDExLAYERS."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    words = [word.split("x") for word in sys.argv[1:]]
    shapes = [(int(c), int(side), int(depth)) for c, side, depth in words] or SHAPES[device]
    save(f"layers_{device}", _rows(shapes, device))


def _rows(shapes: Sequence[Shape], device: str) -> Iterator[dict[str, Any]]:
    rows = []
    for shape in shapes:
        rows.append(_row(shape, device))
        yield rows[-1]
    yield from _growth(rows)


def _row(shape: Shape, device: str) -> dict[str, Any]:
    channels, side, depth = shape
    torch.manual_seed(0)
    x = torch.rand(_BATCH, channels, side, side, device=device)
    steps, slow = without_slow(
        {name: _step(build, x, depth) for name, build in KINDS.items()}, _SECONDS
    )
    times = alternate(steps, rounds=7, warm_up=0)
    row = {
        "channels": channels,
        "side": side,
        "layers": depth,
        "batch": _BATCH,
        **summary(times, "plain"),
    }
    row |= {"one_step_ms": slow} if slow else {}
    return row


def _step(build: Build, x: torch.Tensor, depth: int) -> Callable[[], None]:
    _, channels, side, _ = x.shape
    parts = [part for _ in range(depth) for part in (build(channels, side), MaxMin())]
    model = nn.Sequential(*parts).to(x.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with computed_once(model):
            loss = model(x).square().mean()
        loss.backward()
        optimizer.step()

    return step


def _growth(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Exponents p of time ~ x^p, x each of a shape's numbers with the other two as in the first."""
    keys = ("channels", "side", "layers")
    for varied in keys:
        fixed = {key: rows[0][key] for key in keys if key != varied}
        group = [row for row in rows if all(row[key] == value for key, value in fixed.items())]
        names = set.intersection(*(set(row["median_ms"]) for row in group))
        if len(group) > 1:
            times = {name: [(r[varied], r["median_ms"][name]) for r in group] for name in names}
            yield {
                "exponent_of": varied,
                **fixed,
                **{name: round(_slope(times[name]), 2) for name in sorted(names)},
            }


def _slope(points: list[tuple[float, float]]) -> float:
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x, mean_y = (sum(values) / len(logs) for values in zip(*logs, strict=True))
    above: float = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    below: float = sum((x - mean_x) ** 2 for x, _ in logs)
    return above / below


if __name__ == "__main__":
    main()
