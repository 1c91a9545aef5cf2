"""Claim: a proved norm costs about as much as an SVD in floating point, which proves nothing.

Time and tightness of ``onelip.norms`` against the float64 SVD of the same blocks and against the
Gram iterations that orthogonium ships (with enough of them to come within 1e-6, where they can).
"""

from collections.abc import Callable
from typing import Any

import torch
from harness import alternate, save, summary
from orthogonium.layers.conv.singular_values.delattre24 import (
    compute_delattre2023,
    compute_delattre2024,
)
from torch import Tensor

from onelip import norms


def main() -> None:
    """Dense, circular and zero-padded maps of several sizes."""
    torch.manual_seed(0)
    rows = [_dense(n) for n in (64, 256, 1024, 2048)]
    rows += [_circular(c, n) for c, n in ((3, 32), (16, 32), (64, 32), (128, 16))]
    rows += [_zero_padded(c, n) for c, n in ((3, 8), (3, 16), (3, 24), (8, 12))]
    rows += [_torus(*shape) for shape in ((45, 5, 32), (3, 32, 32), (16, 16, 16))]
    save("norms", rows)


def _dense(n: int) -> dict[str, Any]:
    matrix = torch.randn(n, n)
    functions: dict[str, Callable[[], Tensor]] = {
        "svd": lambda: torch.linalg.matrix_norm(matrix.double(), 2),
        "proved": lambda: norms.dense(matrix),
    }
    return _row(f"dense {n} x {n}", functions)


def _circular(channels: int, size: int) -> dict[str, Any]:
    weight = torch.randn(channels, channels, 3, 3)
    functions: dict[str, Callable[[], Tensor]] = {
        "svd": lambda: torch.linalg.matrix_norm(
            torch.fft.rfft2(weight.double(), (size, size)).permute(2, 3, 0, 1), 2
        ).max(),
        "proved": lambda: norms.convolution(
            weight, image_size=size, padding=1, padding_mode="circular"
        ),
        "orthogonium, 6 iterations": lambda: compute_delattre2023(weight, n=size, n_iter=6),
        "orthogonium, 12 iterations": lambda: compute_delattre2023(weight, n=size, n_iter=12),
    }
    return _row(f"circular, {channels} channels, {size} x {size}", functions)


def _zero_padded(channels: int, size: int) -> dict[str, Any]:
    """Against the norm of the whole operator, written out."""
    weight = torch.randn(channels, channels, 3, 3)
    basis = torch.eye(channels * size**2).double().unflatten(1, (channels, size, size))
    operator = torch.nn.functional.conv2d(basis, weight.double(), padding=1).flatten(1)
    functions: dict[str, Callable[[], Tensor]] = {
        "svd": lambda: torch.linalg.matrix_norm(operator, 2),
        "proved": lambda: norms.convolution(weight, image_size=size, padding=1),
        "proved, all sizes": lambda: norms.convolution(weight, padding=1),
        "orthogonium, 5 iterations": lambda: compute_delattre2024(weight, n_iter=5),
    }
    return _row(f"zero padding, {channels} channels, {size} x {size}", functions)


def _torus(inputs: int, outputs: int, size: int) -> dict[str, Any]:
    """What the torus gives for zero padding, where no SVD is at hand: against the exact proof."""
    weight = torch.randn(outputs, inputs, 3, 3)
    functions: dict[str, Callable[[], Tensor]] = {
        "by rows": lambda: norms.convolution(weight, image_size=size, padding=1),
        "torus": lambda: norms.convolution(
            weight, image_size=size + 1, padding=1, padding_mode="circular"
        ),
        "torus, all sizes": lambda: norms.convolution(weight, padding=1),
    }
    what = f"zero padding, {inputs} to {outputs} channels, {size} x {size}"
    return _row(what, functions, base="by rows")


def _row(
    what: str, functions: dict[str, Callable[[], Tensor]], base: str = "svd"
) -> dict[str, Any]:
    exact = float(functions[base]())
    looseness = {
        name: float(f"{float(function()) / exact - 1:.2e}") for name, function in functions.items()
    }
    seconds = alternate(functions, rounds=7, warm_up=1)
    return {"map": what, "looseness": looseness, **summary(seconds, base)}


if __name__ == "__main__":
    main()
