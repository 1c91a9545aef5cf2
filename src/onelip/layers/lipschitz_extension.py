r"""Lipschitz extensions of values at points (McShane; Whitney, 1934), with trained points.

Of values v at points a the largest and the smallest 1-Lipschitz extension are

.. math:: \min_k v_k + |x - a_k| , \qquad \max_k v_k - |x - a_k| .

Both are 1-Lipschitz whatever the values and points are, as a maximum of 1-Lipschitz functions is.
"""

import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from typing_extensions import override

from onelip.errors import NonFiniteError
from onelip.forward_error import Local, Run
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule
from onelip.lipschitz.module import unknown_rounding
from onelip.norms.rounding import exact

_HEIGHT = 8  # values are heights over this power of two, so that they learn slower than points
_FARTHEST = 40.0  # exponents of a smooth maximum below this count as this: no subnormal numbers


class LipschitzExtension(LipschitzModule):
    r"""``(1 - s) max_k (v_k - |x - a_k|) + s min_k (v_k + |x - a_k|)``, with a share s in [0, 1].

    With enough points it comes as close as is asked to every 1-Lipschitz function on a bounded set.
    Points, heights (8 v) and the share are trained. A training that sets ``temperature`` sees a
    smooth maximum, :math:`t \log \sum_k \exp((v_k - |x - a_k|) / t)`, which is 1-Lipschitz too,
    and has a gradient for each point; minima likewise. In eval mode it is not looked at. In
    training mode the highest cone is found by a matrix product, up to its rounding.

    Bound: 1, attained.
    Shape: ``(batch, in_features)`` to ``(batch, 1)``.
    Cost: one distance for each sample and point.

    Args:
        in_features: size of a sample.
        points: number of points.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: no features, or no points; in ``forward``, samples of another size.

    Example:
        >>> layer = LipschitzExtension(2, 1)
        >>> layer.start(torch.zeros(1, 2))
        >>> layer.share.data.fill_(0)
        tensor(0.)
        >>> layer(torch.tensor([[3.0, 4.0]]))
        tensor([[-5.]], grad_fn=<UnsqueezeBackward0>)

    Reference: McShane, "Extension of range of functions", 1934.
    """

    same_in_float64 = True

    def __init__(self, in_features: int, points: int, **factory: Unpack[FactoryOptions]) -> None:
        super().__init__()
        if min(in_features, points) < 1:
            raise ValueError(f"features and points must be positive, got {in_features}, {points}")
        self.in_features = in_features
        self.points = nn.Parameter(torch.empty(points, in_features, **factory))
        self.heights = nn.Parameter(torch.zeros(points, **factory))
        self.share = nn.Parameter(torch.full((), 0.5, **factory))
        self.temperature = 0.0
        nn.init.normal_(self.points)

    @torch.no_grad()
    def start(self, points: Tensor) -> None:
        """Put the points at samples, with equal values and half of each extension."""
        self.points.copy_(points)
        self.heights.zero_()
        self.share.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return both extensions, in their shares."""
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise ValueError(f"expected (batch, {self.in_features}), got {tuple(x.shape)}")
        share = self.share.clamp(0, 1)
        extend = self._smooth if self.training and self.temperature > 0 else self._exact
        return extend(x, share).unsqueeze(1)

    def _exact(self, x: Tensor, share: Tensor) -> Tensor:
        values = self.heights / _HEIGHT
        with torch.no_grad():
            far = (_distances if self.training else _exact_distances)(x.detach(), self.points)
            lower, upper = (values - far).argmax(1), (values + far).argmin(1)
        lowest = values[lower] - torch.linalg.vector_norm(x - self.points[lower], dim=1)
        highest = values[upper] + torch.linalg.vector_norm(x - self.points[upper], dim=1)
        blended: Tensor = (1 - share) * lowest + share * highest
        return blended

    def _smooth(self, x: Tensor, share: Tensor) -> Tensor:
        values, parts = self.heights / _HEIGHT, []
        for sign, weight in ((1, 1 - share), (-1, share)):
            if weight > 0:  # most trainings end with one of the two
                cones = self._maximum(x, sign * values)
                parts.append(sign * weight * cones)
        return torch.stack(parts).sum(0)

    def _maximum(self, x: Tensor, values: Tensor) -> Tensor:
        found: Tensor = _SmoothMaximum.apply(  # type: ignore[no-untyped-call]
            x, self.points, values, self.temperature
        )
        return found

    def lipschitz_bound(self) -> Tensor:
        """Return 1; NaN if a weight is not finite."""
        finite = all(bool(weight.isfinite().all()) for weight in self.parameters())
        return torch.tensor(1.0 if finite else math.nan, dtype=torch.float64)

    def forward_error(self, run: Run) -> Local:
        """Rounding of distances and sums; a cone that is taken for the highest one is so high.

        Each computed cone is off by some e. So the one that is chosen is at most 2 e below the
        highest, and computed anew it is off by e.
        """
        if self.training:
            raise unknown_rounding(self)
        far = float(exact(self.points).norm(dim=1).max()) * (1 + 1e-12)
        high = float(exact(self.heights).abs().max()) / _HEIGHT
        if not math.isfinite(far + high):
            raise NonFiniteError("the points or heights of a LipschitzExtension are not finite")
        reach = run.x.reach + far
        run.arithmetic.check(4 * reach * reach)
        lost = math.sqrt(8 * self.in_features * run.arithmetic.lost)  # of squares, below the root
        each = run.rounding(self.in_features + 8, reach + high) + lost
        blended = run.rounding(4, reach + high)  # shares, products and their sum
        return Local(far + high, 3 * each + blended)

    @override
    def extra_repr(self) -> str:
        return f"{self.in_features}, points={len(self.points)}"


def _distances(x: Tensor, points: Tensor) -> Tensor:
    """Distances by a matrix product, which is fast; at least 1e-3, where their root is smooth."""
    squares = torch.addmm(points.square().sum(1), x, points.mT, alpha=-2)
    return (squares + x.square().sum(1, keepdim=True)).clamp_min(1e-6).sqrt()


def _exact_distances(x: Tensor, points: Tensor) -> Tensor:
    """Distances from differences, which are exact up to a few units in the last place."""
    x, points = (part.float() if part.itemsize < 4 else part for part in (x, points))  # no 16 bits
    return torch.cdist(x, points, compute_mode="donot_use_mm_for_euclid_dist")


class _SmoothMaximum(torch.autograd.Function):
    """``t log sum_k exp((v_k - |x - a_k|) / t)`` with its gradient, in few passes of all pairs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, points: Tensor, values: Tensor, temperature: float) -> Tensor:
        """Return one number for each sample."""
        far = _distances(x, points)
        shares = values - far
        highest = shares.amax(1, keepdim=True)
        # Exponents are bounded below, so that no share is a subnormal number, which is slow.
        shares.sub_(highest).div_(temperature).clamp_(min=-_FARTHEST).exp_()
        total = shares.sum(1, keepdim=True)
        ctx.save_for_backward(x, points, far, shares.div_(total))
        return (highest + temperature * total.log()).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        """Move points along the rays to the samples, each by its share."""
        x, points, far, shares = ctx.saved_tensors
        pulls = shares * gradients[0].unsqueeze(1)
        of_values = pulls.sum(0)
        pulls /= far
        of_points = pulls.mT @ x - pulls.sum(0).unsqueeze(1) * points
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = pulls @ points - pulls.sum(1, keepdim=True) * x
        return of_x, of_points, of_values, None
