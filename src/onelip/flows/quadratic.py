"""Quadratic potentials, whose flow is linear."""

import math
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip import norms
from onelip.flows.eigenvalue import least_eigenvalue
from onelip.flows.potential import Potential
from onelip.layers.options import FactoryOptions
from onelip.norms.spectral import ends_above


class QuadraticPotential(Potential):
    r"""``|W x|^2 / 2 + b x``, with gradient ``W^T W x + b``.

    Bound: the curvature lies between ``lambda_min(W^T W)`` and ``|W|^2``, both proved.
    Shape: ``(batch, features)`` to ``(batch,)``.
    Cost: two products with W for the gradient; a QR factorisation for the proximal step.

    Args:
        features: size of the input.
        rows: number of rows of W; ``features`` by default. With fewer, the potential is flat in
            some directions.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: sizes that are not positive.

    Example:
        >>> potential = QuadraticPotential(2)
        >>> with torch.no_grad():
        ...     _ = potential.weight.copy_(torch.eye(2))
        >>> potential.gradient(torch.tensor([[3.0, 4.0]])).detach()
        tensor([[3., 4.]])
    """

    def __init__(
        self, features: int, rows: int | None = None, **factory: Unpack[FactoryOptions]
    ) -> None:
        super().__init__()
        rows = features if rows is None else rows
        if min(features, rows) < 1:
            raise ValueError(f"features and rows must be positive, got {features} and {rows}")
        self.weight = nn.Parameter(torch.empty(rows, features, **factory))
        self.bias = nn.Parameter(torch.zeros(features, **factory))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``|W x|^2 / 2 + b x`` for each sample."""
        return F.linear(x, self.weight).square().sum(-1) / 2 + x @ self.bias

    @override
    def gradient(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.weight), self.weight.T, self.bias)

    def smoothness(self) -> Tensor:
        """Proved upper bound of ``|W|^2``."""
        norm = norms.dense(self.weight)
        return torch.where(norm > 0, ends_above(norm.square()), norm)  # 0 of zeros

    @override
    def convexity(self) -> Tensor:
        return least_eigenvalue(self.weight)

    @override
    def proximal(self, x: Tensor, step: Tensor) -> Tensor:
        """Return ``(I + h W^T W)^{-1} (x - h b)``, by a QR factorisation of ``sqrt(h) W`` over I.

        A Cholesky factor of ``I + h W^T W`` would lose the identity to rounding beside long rows,
        as would a QR factorisation of I over ``sqrt(h) W``.
        """
        eye = torch.eye(len(self.bias), dtype=x.dtype, device=x.device)
        q, r = torch.linalg.qr(torch.cat([step.sqrt() * self.weight, eye]))
        # the lower block of Q is R^{-1}, so this is R^{-T} (x - h b) for each sample
        right = (x - step * self.bias) @ q[len(self.weight) :]
        result: Tensor = torch.linalg.solve_triangular(r, right.mT, upper=True).mT
        return result
