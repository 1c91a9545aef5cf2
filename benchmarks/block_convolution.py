"""Claim: composing BCOP's factors in turn beats a tree of log depth.

Forward and backward of the kernel from the same orthonormal bases: ours, which multiplies every tap
by ``Q Q^T`` without forming projectors, and a tree that joins neighbours, 2 x 2 kernels first.
"""

from collections.abc import Callable
from typing import Any

import torch
from harness import alternate, save, summary
from torch import Tensor
from torch.nn import functional as F

from onelip.layers import cholesky_qr
from onelip.layers.block_convolution import block_kernel

SHAPES = ((32, 3), (128, 3), (256, 3), (512, 3), (128, 5), (256, 7))


def main() -> None:
    """Every shape."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    save(f"block_convolution_{device}", (_row(*shape, device) for shape in SHAPES))


def _row(channels: int, size: int, device: str) -> dict[str, Any]:
    torch.manual_seed(0)
    matrix = cholesky_qr(torch.randn(1, channels, channels, device=device))
    bases = cholesky_qr(torch.randn(2 * (size - 1), channels, channels // 2, device=device))
    leaves = [matrix.requires_grad_(), bases[None].requires_grad_()]
    kernels = {"in turn": block_kernel, "tree": tree}
    ours, other = (kernel(*leaves) for kernel in kernels.values())
    torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-4)
    calls = {name: _call(kernel, leaves) for name, kernel in kernels.items()}
    times = alternate(calls, rounds=9)
    return {"channels": channels, "kernel_size": size, **summary(times, "in turn")}


def _call(kernel: Callable[[Tensor, Tensor], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
    def run() -> None:
        result = kernel(*leaves)
        torch.autograd.grad((result * result.detach()).sum(), leaves)

    return run


def tree(matrix: Tensor, bases: Tensor) -> Tensor:
    """The same kernel from formed projectors, all pairs of a level in one batch."""
    projectors = bases[0] @ bases[0].mT
    p, q = projectors[::2], projectors[1::2]
    eye = torch.eye(p.shape[-1], device=p.device)
    both = p @ q
    taps = torch.stack([both, p - both, q - both, eye - p - q + both], 1)
    level = list(taps.unflatten(1, (2, 2)))  # (u, v, n, n): the vertical tap comes first
    while len(level) > 1:
        joined = [_compose(a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
        level = joined + level[2 * len(joined) :]
    kernel: Tensor = (matrix[0] @ level[0]).permute(2, 3, 0, 1)[None]
    return kernel


def _compose(first: Tensor, second: Tensor) -> Tensor:
    """Block convolution of two kernels."""
    height, width, n, _ = first.shape
    tall, wide = second.shape[:2]
    products = first[:, :, None, None] @ second
    rows = products.new_zeros(height + tall - 1, width + wide - 1, n, n)
    for u in range(height):
        for v in range(width):
            rows = rows + F.pad(products[u, v], (0, 0, 0, 0, v, width - 1 - v, u, height - 1 - u))
    return rows


if __name__ == "__main__":
    main()
