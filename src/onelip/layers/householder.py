r"""Householder activations: folds of a plane (Singla, Singla, Feizi, ICLR 2022).

A fold keeps one side of a line through 0 and reflects the other onto it. In polar coordinates it
maps the angle :math:`\phi` to :math:`r - d(\phi, r)`, a tent with its peak on the ray at angle r,
where d is the distance on the circle. An activation of order n is the highest of n tents:

.. math:: (R, \phi) \mapsto (R, g(\phi)), \quad g = \max_k\, (p_k - d(\phi, r_k)).

As g is 1-Lipschitz on the circle, whatever the angles, so is the map, by the law of cosines; slopes
1 and -1 of g are rotations and reflections of the plane. Conversely, a continuous g with slopes 1
and -1 and n peaks is the highest of the tents at its peaks, so nothing is left out: order 2 is the
activation of four sectors and three angles of the paper. (An odd number of sectors does not close
around 0.)
"""

import math
from typing import Unpack

import torch
from torch import Tensor, nn

from onelip.errors import keep_old_names
from onelip.forward_error import Local, Run
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule
from onelip.norms.rounding import exact, upward

Pair = tuple[Tensor, Tensor]


def fold(point: Pair, ray: Tensor) -> Pair:
    """Return ``x - 2 v min(v.x, 0)``, with v normal to the ray: continuous for every v."""
    cos, sin = ray
    x, y = point
    twice = 2 * (sin * x - cos * y).clamp(max=0)
    return x - sin * twice, y + cos * twice


def turn(point: Pair, angle: Tensor) -> Pair:
    """Rotate a point by an angle, given as cosine and sine."""
    cos, sin = angle
    x, y = point
    return cos * x - sin * y, sin * x + cos * y


@torch.no_grad()
def height(point: Pair, ray: Tensor, peak: Tensor) -> Tensor:
    """Return the height of the tent, ``p - d(phi, r)``, with d the distance on the circle."""
    cos, sin = ray
    x, y = point
    # atan2 of the absolute cross product and the dot product: the angle between point and ray
    return peak - torch.atan2((sin * x - cos * y).abs(), cos * x + sin * y)


def highest_fold(point: Pair, rays: Tensor, turns: Tensor, peaks: Tensor) -> Pair:
    """Apply to each point the fold with the highest tent, and turn the result to its peak."""
    folded, highest = fold(point, rays[:, 0]), height(point, rays[:, 0], peaks[0])
    for k in range(1, len(peaks)):
        other = turn(fold(point, rays[:, k]), turns[:, k])
        tent = height(point, rays[:, k], peaks[k])
        # at a tie the images agree, so a choice changed by rounding moves the output by rounding
        folded = _select(tent > highest, other, folded)
        highest = torch.maximum(highest, tent)
    return folded


class Householder(LipschitzModule):
    r"""Fold the plane of each pair of neighbouring channels along learnable lines.

    Order 1 keeps a point x with :math:`v^T x \ge 0` and reflects the others by
    :math:`I - 2 v v^T`, with :math:`v = (\sin \theta/2, -\cos \theta/2)`. It starts at
    :math:`\theta = \pi/2`, where it is ``MaxMin``. Order n has n such folds, of which each point
    takes the one described in the module's docstring; it starts from 2n equal sectors.

    Published networks pair channel i with i + channels / 2. Here pairs are those of ``MaxMin``,
    which differ from them by a permutation of the channels.

    Bound: 1 for exact cosines; the largest norm of a piece with the cosines that were computed,
    about ``1 + 1e-7`` in float32. Order 1 is continuous with these, too; for higher orders the
    pieces then meet up to a few units in the last place of ``|x|``, which is rounding of the
    forward pass.
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: about ten elementwise operations; from order 2 on, twice as many and an arc tangent per
    fold.

    Args:
        channels: channels of the input, an even number.
        order: number of folds; 1 and 2 in the paper.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: an odd number of channels; in ``forward``, another number of channels.

    Example:
        >>> Householder(2)(torch.tensor([[1.0, 2.0]])).detach().round(decimals=4)
        tensor([[2., 1.]])

    Reference: Singla, Singla, Feizi, "Improved deterministic l2 robustness on CIFAR-10 and
    CIFAR-100", ICLR 2022.
    """

    def __init__(self, channels: int, *, order: int = 1, **factory: Unpack[FactoryOptions]) -> None:
        super().__init__()
        if channels < 2 or channels % 2:
            raise ValueError(
                f"channels are folded in pairs: an even number is asked, got {channels}"
            )
        if order < 1:
            raise ValueError(f"order must be at least 1, got {order}")
        self.channels, self.order = channels, order
        self.theta = nn.Parameter(torch.zeros(2 * order - 1, channels // 2, **factory))
        with torch.no_grad():
            folds = torch.arange(order).to(self.theta)[:, None]
            self.theta[:order] = math.pi * (0.5 + 4 * folds / order)

    def tents(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return rays and turns, cosines before sines, ``(2, order, pairs)`` each, and the peaks.

        The rays are at half of the first angles, and the turns lead from them to the peaks. The
        other angles say by how much twice a peak is above the first, which is on its own ray.
        """
        rays = self.theta[: self.order] / 2
        peaks = torch.cat([rays[:1], rays[:1] + self.theta[self.order :] / 2])
        return _directions(rays), _directions(peaks - rays), peaks

    def forward(self, x: Tensor) -> Tensor:
        """Fold each pair of neighbouring channels."""
        if x.shape[1] != self.channels:
            raise ValueError(f"Householder has angles for {self.channels}, got {x.shape[1]}")
        rays, turns, peaks = (t.reshape(*t.shape, *(1,) * (x.ndim - 2)) for t in self.tents())
        point = x.unflatten(1, (-1, 2)).unbind(2)
        if self.order == 1:
            folded = fold(point, rays[:, 0])
        else:
            folded = highest_fold(point, rays, turns, peaks)
        return torch.stack(folded, 2).flatten(1, 2)

    def lipschitz_bound(self) -> Tensor:
        """The largest norm of a reflection ``|I - 2 v v^T|``, times that of its turn; 1 or more."""
        rays, turns, _ = self.tents()
        # I - 2 v v^T has the eigenvalues 1 and 1 - 2 |v|^2, and |v| is 1 up to rounding
        reflections = upward(2 * _squared_length(rays) - 1, 2).clamp(min=1)
        turned = _squared_length(turns).sqrt().clamp(min=1)  # of the exact pieces, too
        return upward(reflections * turned, 2).max().cpu()

    def extra_repr(self) -> str:
        """Channels and order."""
        return f"{self.channels}, order={self.order}"

    def forward_error(self, run: Run) -> Local:
        """Rounding of ``x - 2 v min(v.x, 0)``, or of the pieces of higher orders.

        For order 1, cosines and sines count as computed from the angle, as in the bound. From order
        2 on the pieces fit together only for exact cosines.
        """
        rays, _, _ = self.tents()
        if self.order > 1:
            return _highest_fold(float(exact(self.theta).abs().sum(0).max()), run)
        square = float(upward(exact(rays).square().sum(0), 3).max())
        return Local(0.0, run.rounding(6, (1 + 2 * square) * run.x.reach))


def _directions(angles: Tensor) -> Tensor:
    """Cosines and sines, stacked."""
    return torch.stack([angles.cos(), angles.sin()])


def _squared_length(directions: Tensor) -> Tensor:
    """Squared lengths, rounded up: the computed cosine and sine may be longer than 1."""
    return upward(exact(directions).square().sum(0), 3)


def _select(condition: Tensor, first: Pair, second: Pair) -> Pair:
    """Select points elementwise."""
    x, y = (torch.where(condition, a, b) for a, b in zip(first, second, strict=True))
    return x, y


def _highest_fold(angles: float, run: Run) -> Local:
    """Rounding of the pieces of order 2 and above, for exact cosines and limited angles.

    In units u of ``|x|``: a fold is off by 45 and its turn by 11 and 3 per radian. A tent is off by
    42 and 2 per radian, so a wrongly chosen piece is off by twice that. Where the vector is so
    small that the angle underflows, the error of any piece is within the vector's length.
    """
    small = run.arithmetic.lost / run.arithmetic.unit * math.sqrt(run.count)
    operations = 160 + 8 * math.ceil(angles)
    return Local(0.0, run.rounding(operations, run.x.reach) + 4 * small)


keep_old_names(__name__, {"HouseHolder": "onelip.layers.Householder"})
