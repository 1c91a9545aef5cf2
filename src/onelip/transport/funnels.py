r"""Pairs of distributions whose mass moves along the rays of funnels (Korotin et al., 2022).

With centres a and biases b, :math:`u(x) = \min_n |x - a_n| + b_n` is 1-Lipschitz. Q is uniform on a
cube. A sample y of Q lies on a ray from the centre of its lowest funnel; the part of the ray that
is in the cube, and where that funnel stays the lowest, is a segment. With y at the place t of the
segment, from 0 to 1, its partner in P is the point at :math:`t^8`. Along the segment u rises with
slope 1, so no plan moves less, and :math:`W_1(P, Q) = E |x - y|`.
"""

import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onelip.errors import UsageError
from onelip.transport.tasks import KnownTask

HALF = 2.5
"""Half of the side of the cube."""

_POWER = 8
_CHUNK = 16384  # samples drawn at a time, each with a number for every funnel
_PAIRS = 2**19  # drawn for the distance
_SEED = 977  # of these pairs


def funnels(centers: Tensor, biases: Tensor) -> KnownTask:
    """Pair of distributions of given funnels.

    The distance is a mean over 2^19 drawn pairs of the optimal plan, with its standard error.

    Cost: of the distance some seconds; a sample takes one distance for each funnel.

    Args:
        centers: ``(n, features)``, in the cube [-2.5, 2.5].
        biases: ``(n,)``.

    Raises:
        UsageError: other shapes, numbers that are not finite, or centres outside of the cube.
    """
    centers, biases = centers.detach().float(), biases.detach().float()
    if centers.ndim != 2 or biases.shape != centers.shape[:1] or 0 in centers.shape:
        raise UsageError(
            f"funnels have centers (n, features) and biases (n,), got {tuple(centers.shape)} and "
            f"{tuple(biases.shape)}"
        )
    if not (centers.abs() <= HALF).all() or not biases.isfinite().all():
        raise UsageError(f"funnels have finite biases and centers within [-{HALF}, {HALF}]")
    features = centers.shape[1]

    def draw_q(n: int, random: torch.Generator) -> Tensor:
        return _cube(n, features, random)

    def draw_p(n: int, random: torch.Generator) -> Tensor:
        parts = _cube(n, features, random).split(_CHUNK)
        return torch.cat([partner(part, centers, biases) for part in parts])

    random = torch.Generator().manual_seed(_SEED)
    moved = torch.cat([_moved(centers, biases, random) for _ in range(_PAIRS // _CHUNK)])
    return KnownTask(
        about=f"a cube in {features} dimensions and its mass moved along {len(centers)} funnels",
        features=features,
        distance=float(moved.mean()),
        error=float(moved.std()) / len(moved) ** 0.5,
        draw_p=draw_p,
        draw_q=draw_q,
    )


def partner(y: Tensor, centers: Tensor, biases: Tensor) -> Tensor:
    """Return the point of P of each sample y of Q, ``(batch, features)``."""
    squares = centers.square().sum(1)
    to_all = y.square().sum(1, keepdim=True) - 2 * y @ centers.mT + squares
    lowest = (to_all.clamp_min(0).sqrt() + biases).argmin(1)
    center = centers[lowest]
    length = torch.linalg.vector_norm(y - center, dim=1)
    ray = (y - center) / length.clamp_min(1e-30)[:, None]
    walls = torch.where(ray != 0, (HALF * ray.sign() - center) / ray, torch.inf).amin(1)
    walls = walls.where(length > 0, 0.0)  # a centre itself is on no ray
    # Where |center + s ray - a| + b is s + its own bias: s = (|e|^2 - c^2) / (2 (c - e ray)).
    rise = biases[lowest][:, None] - biases
    apart = center.square().sum(1, keepdim=True) - 2 * center @ centers.mT + squares
    along = (center * ray).sum(1, keepdim=True) - ray @ centers.mT
    slower = 2 * (rise - along)
    meets = torch.where(
        slower > 1e-9, (apart - rise.square()) / slower.clamp_min(1e-9), torch.inf
    ).scatter(1, lowest[:, None], torch.inf)
    # A sample beyond the end is there by rounding.
    end = torch.maximum(torch.minimum(walls, meets.amin(1)), length)
    place = (length / end.clamp_min(1e-30)) ** _POWER
    point: Tensor = center + (place * end)[:, None] * ray
    return point


def read_funnels(features: int, count: int, folder: str | None) -> KnownTask:
    """Read the pair of some dimensions and funnels of the public benchmark.

    Args:
        features: number of dimensions.
        count: number of funnels.
        folder: of ``funnels.npz``, or of ``wasserstein1/funnels.npz``, with the arrays
            ``centers_D_N`` and ``bias_D_N``.

    Raises:
        UsageError: no folder, no file, or no such pair in it.

    Reference: Korotin, Kolesov, Burnaev, "Kantorovich strikes back! Wasserstein GANs are not
    optimal transport?", NeurIPS 2022.
    """
    if folder is None:
        raise UsageError(f"funnels-{features}-{count} reads funnels.npz of the folder --data DIR")
    places = [Path(folder) / name for name in ("funnels.npz", "wasserstein1/funnels.npz")]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UsageError(f"no funnels.npz in {folder} nor in its folder wasserstein1")
    return _read(file.resolve(), features, count)


@cache
def _read(file: Path, features: int, count: int) -> KnownTask:
    try:
        with np.load(file) as arrays:
            known = sorted(name[8:].replace("_", "-") for name in arrays if name[:8] == "centers_")
            if f"{features}-{count}" not in known:
                raise UsageError(f"no funnels-{features}-{count} in {file}; known: {known}")
            found = [arrays[f"{name}_{features}_{count}"] for name in ("centers", "bias")]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{file} cannot be read as arrays of funnels: {error}") from None
    return funnels(*(torch.from_numpy(np.array(array, dtype=np.float32)) for array in found))


def _cube(n: int, features: int, random: torch.Generator) -> Tensor:
    return 2 * HALF * torch.rand(n, features, generator=random) - HALF


def _moved(centers: Tensor, biases: Tensor, random: torch.Generator) -> Tensor:
    y = _cube(_CHUNK, centers.shape[1], random)
    lengths: Tensor = torch.linalg.vector_norm(y - partner(y, centers, biases), dim=1)
    return lengths.double()
