"""Cost of proving the norm of a product of linear maps as a whole, and whether it can gain."""

import math

import torch
from torch import Tensor

from onelip.bounds.products.scaled_maps import Cores
from onelip.chains import Along, Composition, Convolution, Dense, LinearMap, Sum
from onelip.norms.banded import lanczos

WRITTEN_OUT = 2048
"""Largest number of rows of a matrix that is proved by its own singular values."""

_GRAM = 10000  # rows of a Gram matrix: 800 megabytes, a few of them
_ENTRIES = 2**27  # of a matrix that is written out: a gigabyte
_WITHIN_NORM = 1024  # up to this size a convolution's own norm writes it out
_STEPS = 60  # of the estimate


def narrowest(cores: Cores) -> tuple[int, int]:
    """Return size and place of the narrowest space between the maps, 0 for the inputs."""
    sizes = [(cores[0].columns, 0), *((core.rows, i) for i, core in enumerate(cores, 1))]
    # An inner place takes two Gram matrices and a product: about three times the work of an end.
    end, inner = min(sizes[0], sizes[-1]), min(sizes[1:-1], default=sizes[0])
    return inner if end[0] > WRITTEN_OUT and 3 * inner[0] ** 3 < end[0] ** 3 else end


def cost(cores: Cores) -> float:
    """Estimate the multiplications of proving the product's norm; infinite if nothing is gained."""
    if not cores or not _gains(cores):
        return math.inf
    size, cut = narrowest(cores)
    once = sum(multiplications(core) for core in cores)
    if 0 < cut < len(cores):
        return 2 * size * once + 3 * size**3 if size <= _GRAM else math.inf
    if size <= WRITTEN_OUT:
        entries = size * max(cores[0].columns, cores[-1].rows)
        return size * (once + entries + 4 * size**2) if entries <= _ENTRIES else math.inf
    return 2 * size * once + size**3 if size <= _GRAM else math.inf


def _gains(cores: Cores) -> bool:
    """Check whether writing the product out can be tighter than its maps' own norms."""
    if len(cores) > 1 or isinstance(cores[0], Sum):
        return True
    core = cores[0]
    wide = min(core.rows, core.columns) > _WITHIN_NORM
    return isinstance(core, Convolution) and not core.circular and wide


def estimate(cores: Cores) -> float:
    """Estimate the norm of the product from below: no proof, but it spares a vain one."""

    def gram(x: Tensor) -> Tensor:
        x = x[None]
        for core in cores:
            x = core(x)
        for core in reversed(cores):
            x = core.adjoint(x)
        return x[0]

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(*cores[0].inputs, generator=generator, dtype=torch.float64)
    return math.sqrt(max(0.0, float(lanczos(gram, start, _STEPS))))


def multiplications(linear: LinearMap) -> int:
    """Count the multiplications that a map takes for one vector."""
    if isinstance(linear, Sum | Composition):
        return sum(multiplications(part) for part in linear.maps)
    if isinstance(linear, Dense):
        return linear.weight.numel()
    if isinstance(linear, Along):
        return linear.rows * linear.weight.shape[1]
    if isinstance(linear, Convolution):
        return linear.rows * math.prod(linear.weight.shape[1:])
    return linear.rows
