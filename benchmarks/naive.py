"""BCOP written down as Algorithm 1 prints it: what fast code is compared with."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_ITERATIONS = 20


class NaiveBCOPConv2d(nn.Module):
    """An orthogonal 3 x 3 convolution, one line of code for each line of the algorithm."""

    def __init__(self, channels: int, side: int) -> None:  # noqa: ARG002
        super().__init__()
        self.raw = nn.Parameter(torch.empty(5, channels, channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        for matrix in self.raw:
            nn.init.orthogonal_(matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        n = x.shape[1]
        matrices = [_bjorck(matrix) for matrix in self.raw]
        mask = torch.zeros(n, device=x.device)
        mask[: n // 2] = 1
        eye = torch.eye(n, device=x.device)
        kernel = {(0, 0): matrices[0]}
        for i, q in enumerate(matrices[1:]):
            p = q @ torch.diag(mask) @ q.t()
            taps = {(0, 0): p, ((1, 0) if i % 2 == 0 else (0, 1)): eye - p}
            kernel = _block_convolution(kernel, taps)
        weight = torch.stack(
            [torch.stack([kernel[u, v] for v in range(3)], -1) for u in range(3)], -2
        )
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="circular"), weight, self.bias)


Taps = dict[tuple[int, int], Tensor]


def _block_convolution(first: Taps, second: Taps) -> Taps:
    result: Taps = {}
    for (u, v), a in first.items():
        for (s, t), b in second.items():
            place = (u + s, v + t)
            result[place] = result[place] + a @ b if place in result else a @ b
    return result


def _bjorck(matrix: Tensor) -> Tensor:
    vector = torch.ones(matrix.shape[1], device=matrix.device)
    for _ in range(10):
        vector = F.normalize(matrix.t() @ F.normalize(matrix @ vector, dim=0), dim=0)
    matrix = matrix / (matrix @ vector).norm().detach()
    for _ in range(_ITERATIONS):
        matrix = 1.5 * matrix - 0.5 * matrix @ matrix.t() @ matrix
    return matrix
