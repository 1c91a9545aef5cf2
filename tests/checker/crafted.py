"""Bundles of plain dense networks with multipliers, written by hand: any numbers, true or not."""

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

Array = Any
Network = tuple[list[Array], list[Array], list[Array]]  # weights, slopes, multipliers


def plain(
    folder: Path,
    weights: list[Array],
    slopes: list[Array],
    multipliers: list[Array],
    bound: float,
    shape: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Write a bundle whose norms are claimed with much room; its record.

    Args:
        folder: where; made if it is not there.
        weights: matrices, the first first.
        slopes: of each leaky-relu, in any shape.
        multipliers: for each block.
        bound: what is claimed of the network.
        shape: of an input; a vector if left out.
    """
    tensors = {f"w{k}": np.asarray(w) for k, w in enumerate(weights)}
    tensors |= {f"s{k}": np.asarray(s) for k, s in enumerate(slopes)}
    tensors |= {f"t{k}": np.asarray(t) for k, t in enumerate(multipliers)}
    norms = [_above(np.asarray(w)) for w in weights]

    def dense(k: int) -> dict[str, Any]:
        return {"map": "dense", "norm": norms[k].hex(), "weight": f"w{k}", "bias": None}

    blocks = [
        {
            "inner": [dense(k)],
            "activation": {"kind": "leaky-relu", "slopes": f"s{k}"},
            "outer": [],
            "skip": None,
            "bound": _finite(norms[k] * max(1.0, float(np.abs(s).max())) * 1.01).hex(),
        }
        for k, s in enumerate(slopes)
    ]
    record = {
        "format": "onelip proof",
        "version": 1,
        "level": "real",
        "about": "crafted",
        "files": {},
        "input": list(shape or weights[0].shape[1:]),
        "network": {
            "blocks": blocks,
            "last": [dense(len(weights) - 1)],
            "method": {
                "kind": "multipliers",
                "weights": [f"t{k}" for k in range(len(multipliers))],
            },
        },
        "bound": float(bound).hex(),
        "samples": None,
    }
    write(folder, record, tensors)
    return record


def write(folder: Path, record: dict[str, Any], tensors: dict[str, Array]) -> None:
    """Write a record and tensors, with the digest."""
    folder.mkdir(exist_ok=True)
    data = safetensors.numpy.save({k: np.ascontiguousarray(a) for k, a in tensors.items()})
    (folder / "tensors.safetensors").write_bytes(data)
    record["files"] = {"tensors.safetensors": hashlib.sha256(data).hexdigest()}
    (folder / "proof.json").write_text(json.dumps(record))


def _above(w: Array) -> float:
    """A number above the norm of a matrix."""
    top = float(np.abs(w).max(initial=0.0))
    if top == 0:
        return 0.0
    return _finite(top * float(np.linalg.norm(w.astype(np.float64) / top)) * 1.01)


def _finite(x: float) -> float:
    return min(x, float(np.finfo(np.float64).max))


def form(
    weights: list[Array], slopes: list[Array], multipliers: list[Array], bound: float
) -> Array:
    """The quadratic form as a float64 matrix, row by row of the slopes."""
    sizes = [w.shape[1] for w in weights]
    ends = np.cumsum([0, *sizes])
    m = np.zeros((ends[-1], ends[-1]))
    m[: ends[1], : ends[1]] = np.eye(sizes[0]) * bound**2
    for k, (w, t) in enumerate(zip(weights, multipliers, strict=False)):
        s = np.broadcast_to(slopes[k], len(w))
        old, new = slice(ends[k], ends[k + 1]), slice(ends[k + 1], ends[k + 2])
        m[old, old] += 2 * w.T @ ((s * t)[:, None] * w)
        m[new, new] += 2 * np.diag(t)
        m[new, old] = -((1 + s) * t)[:, None] * w
        m[old, new] = m[new, old].T
    m[ends[-2] :, ends[-2] :] -= weights[-1].T @ weights[-1]
    return m


def least_eigenvalue(m: Array) -> float:
    """The smallest eigenvalue of a matrix scaled to a diagonal of ones; minus 1 without one."""
    d = m.diagonal()
    if not np.isfinite(m).all() or d.min() <= 0:
        return -1.0
    root = 1 / np.sqrt(d)
    return float(np.linalg.eigvalsh(root[:, None] * m * root)[0])


def crafted(
    sizes: tuple[int, ...], slope: float, rng: np.random.Generator, spread: int = 0
) -> Network:
    """A network on both checkers' grids, and multipliers of few bits whose form can be positive."""
    weights = []
    for n, m in itertools.pairwise(sizes):
        w = np.rint(rng.normal(size=(m, n)) * 64) / 64
        weights.append(w * 2.0 ** rng.integers(-spread, spread + 1, size=(m, 1)))
    slopes = [np.full(1, slope) for _ in weights[1:]]
    multipliers, need = [], weights[-1].T @ weights[-1]
    for w in reversed(weights[:-1]):
        # rows of small weights need small multipliers, so those are not all alike
        sums = np.abs(need).sum(1) + 2.0**-20
        t = 2.0 ** np.ceil(np.log2(sums)) * rng.choice([1, 1.25, 1.5], size=len(sums))
        multipliers.insert(0, t)
        need = 4 * max(1.0, slope * slope) * w.T @ (t[:, None] * w)
    return weights, slopes, multipliers


def least_constant(network: Network) -> float:
    """The least constant whose form is positive, by float64; infinite where there is none."""
    low, high = 0.0, 2.0**40
    if least_eigenvalue(form(*network, high)) < 0:
        return math.inf
    for _ in range(90):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if least_eigenvalue(form(*network, middle)) > 0 else (middle, high)
        )
    return high
