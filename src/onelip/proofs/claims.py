"""Norms of linear maps as claims for a checker: guessed here, shown there.

A claim is a guess, a little enlarged, so that a factorisation in float64 can show it. Nothing rests
on the guess: one that is too small is found when the bundle is checked, before it gets its name.
"""

import math

import torch
from torch import Tensor

from onelip.chains import Convolution, LinearMap, Scale
from onelip.chains.linear_map import Taking
from onelip.chains.windows import Windows

ROOM = 1 + 2.0**-32
"""By how much a claimed norm is larger than the guess."""

_WRITTEN = 2**25  # entries of a map that the checker writes out
_SIDE = 1024  # of its smaller side


def hexadecimal(number: float | Tensor) -> str:
    """A float64 number, exactly."""
    return float(number).hex()


def claimed_norm(linear: LinearMap) -> float:
    """A norm that the checker can show of a map without parts, other than a convolution."""
    if isinstance(linear, Taking):
        kept = linear.index[linear.index >= 0]
        most = int(kept.bincount().max()) if len(kept) else 0
        return 1.0 if most == 1 else math.sqrt(most) * ROOM
    if isinstance(linear, Scale):
        return float(linear.factor.detach().double().abs().max()) * ROOM
    norm = torch.linalg.matrix_norm(linear.weight.detach().double(), 2)  # type: ignore[attr-defined]
    return float(norm) * ROOM


def claimed_norm_of_convolution(
    linear: Convolution, witness: str | None = None
) -> tuple[float, str]:
    """A norm that the checker can show of a convolution, and the name of the way there.

    Cost: a singular value decomposition of the map, where it is small; else one per frequency; one
        of the kernel, for ``witness="kernel"``, which is the loosest.
    """
    weight = linear.weight.detach().double().cpu()
    overlap = _overlap(linear)
    if witness == "kernel" or (isinstance(linear, Windows) and overlap == 1):
        return _largest(_kernels(linear, weight)) * math.sqrt(overlap) * ROOM, "kernel"
    if linear.rows * linear.columns <= _WRITTEN and min(linear.rows, linear.columns) <= _SIDE:
        basis = torch.eye(linear.columns, dtype=torch.float64).view(-1, *linear.inputs)
        return _largest(linear.exact()(basis).flatten(1)) * ROOM, "matrix"
    return _on_torus(linear, weight) * ROOM, "torus"


def _largest(matrices: Tensor) -> float:
    """Largest norm of a batch of matrices; by the smaller Gram matrix, which is faster."""
    wide = matrices.shape[-1] > matrices.shape[-2]
    gram = matrices @ matrices.mH if wide else matrices.mH @ matrices
    return math.sqrt(max(float(torch.linalg.eigvalsh(gram).amax()), 0.0))


def _kernels(linear: Convolution, weight: Tensor) -> Tensor:
    """One matrix per group."""
    return weight.reshape(linear.groups, len(weight) // linear.groups, -1)


def _looks(linear: Convolution) -> list[Tensor]:
    """For each axis, where each tap looks from pixel 0."""
    taps = zip(linear.padding, linear.dilation, linear.weight.shape[2:], strict=True)
    return [torch.arange(k) * d - p for p, d, k in taps]


def _overlap(linear: Convolution) -> int:
    """How often a pixel is seen by one output channel, at most."""
    pairs = zip(_looks(linear), linear.stride, strict=True)
    return math.prod(int((looks % stride).bincount().max()) for looks, stride in pairs)


def _on_torus(linear: Convolution, weight: Tensor) -> float:
    """Largest norm over the frequencies of the smallest torus that holds the image."""
    sides = []
    for n, m, p, s in zip(
        linear.inputs[1:], linear.outputs[1:], linear.padding, linear.stride, strict=True
    ):
        around = n if linear.circular else max(n + p, m * s)
        sides.append(-(-around // s))
    (height, width), (s, t), (down, across) = sides, linear.stride, _looks(linear)
    inputs = weight.shape[1]
    kernel = weight.reshape(linear.groups, -1, *weight.shape[1:])
    cells = weight.new_zeros(*kernel.shape[:3], s, t, height, width)
    for i, u in enumerate(down.tolist()):
        for j, v in enumerate(across.tolist()):
            cells[..., u % s, v % t, u // s % height, v // t % width] += kernel[..., i, j]
    symbol = torch.fft.rfft2(cells)  # the conjugate of what the checker takes
    symbol = symbol.reshape(linear.groups, kernel.shape[1], inputs * s * t, -1)
    return max(_largest(part.movedim(-1, 0)) for part in symbol.split(64, -1))
