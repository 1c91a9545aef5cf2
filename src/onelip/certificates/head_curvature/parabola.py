r"""Parabolas below a logit difference, and the balls in which they prove it positive.

Let :math:`f = z_l - z_i > 0` at :math:`x_0`, and its Hessian lie above :math:`-N I`. At any point
y, with g the gradient there and :math:`p = x_0 - y`, f lies above
:math:`q(x) = f(y) + g^T (x - y) - N |x - y|^2 / 2`. Seen from :math:`x_0`, q has the value
:math:`q_0 = f(y) + g^T p - N |p|^2 / 2` and the gradient :math:`g_0 = g - N p`, so that f is
positive in the open ball around :math:`x_0` of radius

.. math:: R(y) = 2 q_0 / (\sqrt{|g_0|^2 + 2 N q_0} + |g_0|).

At :math:`y = x_0` this is the closed form of Singla and Feizi (2022); at the minimiser of their
dual problem it is the root of twice the dual value. No solver has to be trusted: R is a proof at
every y.
"""

import torch
from torch import Tensor

from onelip.certificates.head_curvature.tangents import Tangent
from onelip.norms.rounding import UNIT, downward, frobenius, gamma, upward


def proved_radius(start: Tensor, points: Tensor, tangent: Tangent, bend: Tensor) -> Tensor:
    """Radius R(y) around each start that the parabola at its point proves, rounded downwards.

    Args:
        start: ``(points, features)`` float64, the centres x0.
        points: ``(points, features)`` float64, any y.
        tangent: tangent of the logit difference at ``points``.
        bend: ``(points,)`` float64, N >= 0.

    Returns:
        ``(points,)`` float64; 0 where nothing is proved.
    """
    back = start - points
    length, steep = frobenius(back[:, None]), frobenius(tangent.gradient[:, None])
    slope = (tangent.gradient * back).sum(1)
    # All errors are taken from the value at x0: those of f(y), of g, and of the inner product.
    loss = tangent.error + length * (tangent.slack + gamma(start.shape[1] + 8) * steep)
    loss = upward(loss + bend * length.square() / 2, 8)
    rounding = 8 * UNIT * (tangent.value.abs() + slope.abs() + loss)
    value = tangent.value + slope - loss - rounding
    turned = frobenius((tangent.gradient - bend[:, None] * back)[:, None])
    # R decreases in the slope: the norm of the exact gradient is bounded from above.
    turned = upward(turned + tangent.slack + gamma(8) * (steep + bend * length), 8)
    return reach(value, turned, bend)


def reach(value: Tensor, steep: Tensor, bend: Tensor) -> Tensor:
    """Radius at which a parabola of this value and slope at its centre first meets 0.

    Rounded downwards. Decreasing in the slope and the bend, increasing in the value; 0 where the
    value is not positive.
    """
    radius = value / (((steep.square() + 2 * bend * value).sqrt() + steep) / 2)  # no overflow
    return torch.where(value > 0, downward(radius, 16), 0.0).nan_to_num(nan=0.0)
