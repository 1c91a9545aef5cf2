"""What further kinds of maps and activations do, by torch from the page of the format."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Record = dict[str, Any]
Get = Callable[[str | None], Tensor | None]


def fourier(get: Get, record: Record, x: Tensor) -> Tensor:
    """A matrix for each frequency, by the formula of the page."""
    weight = torch.view_as_complex(get(record["weight"]).contiguous())
    (height, width), half = x.shape[2:], weight.shape[1]
    phases = [
        torch.outer(torch.arange(n).double(), torch.arange(m).double()) / m
        for n, m in ((height, height), (half, width))
    ]
    down, across = (torch.polar(torch.ones_like(p), 2 * torch.pi * p) for p in phases)
    transformed = torch.einsum("bcij,ki,lj->bckl", x.cdouble(), down.conj(), across.conj())
    image = torch.einsum("kloc,bckl->bokl", weight.cdouble(), transformed)
    columns = torch.arange(half)
    image = image * torch.where((columns == 0) | (2 * columns == width), 1, 2)
    y = torch.einsum("bokl,ki,lj->boij", image, down, across).real / (height * width)
    bias = get(record["bias"])
    return y if bias is None else y + bias.view(-1, 1, 1)


def piecewise(get: Get, record: Record, x: Tensor) -> Tensor:
    """The value at the first knot, and slopes from there on."""
    knots, slopes, bends = (get(record[name]) for name in ("knots", "slopes", "bends"))
    y = get(record["value"]) + slopes[0] * (x - knots[0]).clamp(max=0)
    for i in range(len(knots) - 1):
        t = torch.minimum(torch.maximum(x, knots[i]), knots[i + 1]) - knots[i]
        y = y + slopes[i + 1] * t + (0 if bends is None else bends[i] * t * t / 2)
    return y + slopes[-1] * (x - knots[-1]).relu()


def piecewise_slopes(get: Get, record: Record) -> tuple[float, float]:
    """Slopes at the ends of pieces."""
    knots, slopes, bends = (get(record[name]) for name in ("knots", "slopes", "bends"))
    ends = slopes.flatten()
    if bends is not None:
        ends = torch.cat([ends, (slopes[1:-1] + bends * knots.diff(dim=0)).flatten()])
    return float(ends.min()), float(ends.max())


SMOOTH: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, float]]] = {
    "softplus": (lambda x: torch.logaddexp(x, torch.zeros(()).double()), (0.0, 1.0)),
    "tanh": (torch.tanh, (0.0, 1.0)),
    "sigmoid": (torch.sigmoid, (0.0, 0.25)),
    "elu": (F.elu, (0.0, 1.0)),
    "silu": (F.silu, (-0.1, 1.1)),
    "gelu": (F.gelu, (-0.12905, 1.12905)),
    "gelu-tanh": (lambda x: F.gelu(x, approximate="tanh"), (-0.12905, 1.12905)),
    "mish": (F.mish, (-0.11253, 1.0885)),
    "softsign": (F.softsign, (0.0, 1.0)),
}
"""Functions, and slopes of the format."""


def scaled(get: Get, record: Record, x: Tensor) -> Tensor:
    """Other scales of the input, and of the result above and below 0."""
    x = get(record["inner"]) * x
    above, below = get(record["above"]), get(record["below"])
    return torch.where(x > 0, above, below) * SMOOTH[record["of"]][0](x)


def scaled_slopes(get: Get, record: Record) -> tuple[float, float]:
    """All products."""
    outer = torch.cat([get(record[name]).flatten() for name in ("above", "below")])
    slopes = torch.tensor(SMOOTH[record["of"]][1], dtype=torch.float64)
    products = get(record["inner"]).flatten()[:, None, None] * outer[:, None] * slopes
    return float(products.min()), float(products.max())


def pool(get: Get, record: Record, x: Tensor) -> Tensor:
    """The maximum, or the length, of each group."""
    index = get(record["index"]).long()
    taken, inside = x.flatten(1)[:, index.clamp_min(0)], index >= 0
    if record["of"] == "maximum":
        found = taken.where(inside, -torch.inf).amax(2)
    else:
        found = taken.where(inside, 0.0).norm(dim=2)
    return found.view(-1, *record["outputs"])


def pool_slopes(get: Get, record: Record) -> tuple[float, float]:
    """The root of the number of groups that share a number."""
    index = get(record["index"]).long()
    constant = math.sqrt(int(index[index >= 0].bincount().max()))
    return -constant, constant


def fold(get: Get, record: Record, x: Tensor) -> Tensor:
    """Angles of pairs of channels to the highest tent, by angles."""
    point = x.unflatten(1, (-1, 2))
    first, second = point.unbind(2)
    rays, peaks = (
        get(record[name]).view(-1, first.shape[1], *(1,) * (x.ndim - 2))
        for name in ("rays", "peaks")
    )
    apart = torch.atan2(second, first) - rays[:, None]
    circle = torch.pi - (apart.remainder(2 * torch.pi) - torch.pi).abs()
    angle, length = (peaks[:, None] - circle).amax(0), torch.hypot(first, second)
    return torch.stack([length * angle.cos(), length * angle.sin()], 2).flatten(1, 2)


def rays(get: Get, record: Record, x: Tensor) -> Tensor:
    """Signed distance to two rays, by angles."""
    first, second = x.chunk(2, 1)
    angle = get(record["angles"]).cos().acos().view(-1, *(1,) * (x.ndim - 2))
    length = torch.hypot(first, second)
    apart = torch.atan2(second.abs(), first) - angle
    far = torch.where(angle < torch.pi / 2, length, -length)
    return torch.where(apart.abs() <= torch.pi / 2, length * apart.sin(), far)


def polygon(get: Get, record: Record, x: Tensor) -> Tensor:
    """Distance to the segments between corners, each by its nearest point."""
    point = torch.stack(x.chunk(2, 1), 1)
    corners = get(record["corners"])
    corners = corners.view(*corners.shape, *(1,) * (x.ndim - 2))
    if len(corners) == 1:
        return (point - corners[0]).norm(dim=1)
    found = []
    for start, end in itertools.pairwise(corners):
        along = end - start
        size = along.square().sum(0)
        share = ((point - start) * along).sum(1) / size.where(size > 0, 1)
        nearest = start + share.clamp(0, 1)[:, None] * along
        found.append((point - nearest).norm(dim=1))
    return torch.stack(found).amin(0)


def _one(get: Get, record: Record) -> tuple[float, float]:
    return -1.0, 1.0


MAPS: dict[str, Callable[[Get, Record, Tensor], Tensor]] = {"fourier": fourier}
"""Linear maps with their shifts."""

ACTIVATIONS: dict[str, tuple[Any, Any]] = {
    "piecewise": (piecewise, piecewise_slopes),
    "scaled": (scaled, scaled_slopes),
    "pool": (pool, pool_slopes),
    "fold": (fold, _one),
    "rays": (rays, _one),
    "polygon": (polygon, _one),
}
"""What an activation does, and its slopes."""
