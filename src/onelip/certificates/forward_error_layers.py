"""What rounding does inside our own layers: those without weights, and what the rest export to.

A cosine or sine that a layer computes from a stored angle is taken as it was computed, as in the
proof of its Lipschitz constant; but for ``Householder`` of order 2 and above, whose pieces only fit
together where it is exact.
"""

import math
from typing import Any

from torch import Tensor, nn

from onelip import layers, norms
from onelip.certificates.forward_error_rules import (
    Arithmetic,
    Local,
    Run,
    Value,
    rule,
    through,
)
from onelip.certificates.forward_error_torch import (
    absolute_norm,
    affine,
    moved,
    refuse_fast_convolutions,
    repeated,
    scaled,
)
from onelip.layers import Abs, GroupSort, Householder, MaxMin, NActivation
from onelip.layers.gradient_step import norm_bound
from onelip.norms.rounding import exact, upward

rule(
    Abs,
    GroupSort,
    MaxMin,
    layers.ChannelMaxPool,
    layers.TruncateChannels,
    layers.InvertibleDownsampling,
    layers.ZeroPadChannels,
)(moved)
rule(layers.Rescale, layers.ScaledMaxPool2d)(scaled)


@rule(layers.FixedConv2d)
def _fixed_conv(layer: layers.FixedConv2d, run: Run) -> Local:
    refuse_fast_convolutions(layer.conv.weight)
    return affine(layer.conv, run, layer.conv.weight[0].numel())


@rule(layers.Normalize)
def _normalize(layer: layers.Normalize, run: Run) -> Local:
    """A difference and a quotient."""
    mean, std = exact(layer.mean).abs().cpu(), exact(layer.std).abs().cpu()
    offset = repeated(upward(mean / std, 1), run)
    run.arithmetic.check(2 * (run.x.reach + repeated(mean, run)))
    lost = run.lipschitz * run.rounding(1, 0.0)  # what a difference lost, divided
    return Local(offset, run.rounding(4, run.lipschitz * run.x.reach + offset) + lost)


@rule(layers.ScaledAvgPool2d)
def _average(layer: layers.ScaledAvgPool2d, run: Run) -> Local:
    """A sum, a quotient and a product; the bound of 1 is the length of the means after scaling."""
    run.arithmetic.check(run.x.reach * layer.kernel_size**2)
    lost = layer.scale * run.rounding(1, 0.0)  # what a quotient lost, multiplied
    return Local(0.0, run.rounding(layer.kernel_size**2 + 3, run.x.reach) + lost)


@rule(layers.ScaledL2NormPool2d)
def _norm_pool(layer: layers.ScaledL2NormPool2d, run: Run) -> Local:
    """Squares may be lost to underflow: their sum by ``window * lost``, its root by the root."""
    window = layer.kernel_size**2
    run.arithmetic.check(2 * run.x.reach * run.x.reach)
    lost = math.sqrt(4 * window * run.arithmetic.lost * run.count)
    return Local(0.0, run.rounding(window + 6, run.x.reach) + lost)


@rule(NActivation)
def _n_activation(layer: NActivation, run: Run) -> Local:
    """``x - 2 clamp(x)``: a clamp and a double are exact; 1-Lipschitz, and so small."""
    low, high = exact(layer.theta).cpu().sort(dim=0).values
    shift = low.relu() + (-high).relu()  # one of them is 0
    offset = 2 * repeated(shift, run)
    return Local(offset, run.rounding(1, run.x.reach + offset))


@rule(Householder)
def _householder(layer: Householder, run: Run) -> Local:
    """``x - 2 v min(v.x, 0)``, of order 1."""
    rays, _, _ = layer.tents()
    if layer.order > 1:
        return _highest_fold(float(exact(layer.theta).abs().sum(0).max()), run)
    square = float(upward(exact(rays).square().sum(0), 3).max())
    return Local(0.0, run.rounding(6, (1 + 2 * square) * run.x.reach))


def _highest_fold(angles: float, run: Run) -> Local:
    """Pieces of order 2 and above, for exact cosines, with angles up to a size.

    In units u of ``|x|``: a fold is off by 45 and its turn by 11 and 3 per radian. A tent is off by
    42 and 2 per radian, so a piece that was chosen wrongly by twice that; where the vector is so
    small that the angle underflows, any piece is within its length.
    """
    small = run.arithmetic.lost / run.arithmetic.unit * math.sqrt(run.count)
    operations = 160 + 8 * math.ceil(angles)
    return Local(0.0, run.rounding(operations, run.x.reach) + 4 * small)


@rule(layers.ProjectionPool2d)
def _projection_pool(layer: layers.ProjectionPool2d, run: Run) -> Local:  # noqa: ARG001
    """Two sums of two products, and a length.

    Where the sign of ``along`` is computed wrongly, its terms have opposite signs, so ``across``
    has the sign of the cosine, and both branches agree up to ``|along|``, which is within rounding.
    """
    return Local(0.0, run.rounding(24, run.lipschitz * run.x.reach))


@rule(layers.CurvePool2d)
def _curve_pool(layer: layers.CurvePool2d, run: Run) -> Local:
    """Distance to a segment: p - s and e - s, a share of the segment, the rest and its length.

    The share is off by at most ``8 u |p - s| / |e - s|``, which moves the point on the segment by
    ``8 u |p - s|``; a segment that is too short for that is no longer than ``2 sqrt(lost / u)``.
    """
    lengths = upward(exact(layer.corners).cpu().square().sum(1), 3).sqrt()
    magnitude = run.x.reach + 3 * repeated(upward(lengths.amax(0), 2), run)
    run.arithmetic.check(4 * magnitude * magnitude)
    lost = 4 * math.sqrt(run.arithmetic.lost / run.arithmetic.unit * run.count)
    return Local(repeated(upward(lengths.amin(0), 2), run), run.rounding(24, magnitude) + lost)


@rule(layers.GradientStep)
def _gradient_step(layer: layers.GradientStep, run: Run) -> Local:
    arithmetic = run.arithmetic
    norm = norm_bound(layer.inner.weight, layer.image_size, layer.padding_mode)
    hidden = through(layer.inner, run.x, arithmetic, lipschitz=norm)
    hidden = through(layer.activation, hidden, arithmetic)
    if layer.step is not None:
        hidden = _times(hidden, float(exact(layer.step)), arithmetic)
    step = through(layer.outer, hidden, arithmetic, lipschitz=norm)
    return Local(step.offset, step.error + run.rounding(1, run.x.reach + step.reach))


def _times(x: Value, factor: float, arithmetic: Arithmetic) -> Value:
    """Multiply by a stored number that is not negative."""
    lost = arithmetic.rounding(1, factor * x.reach, x.count)
    return Value(x.shape, factor * x.size, factor * x.error + lost, factor * x.offset)


@rule(layers.Sandwich)
def _sandwich(layer: layers.Sandwich, run: Run) -> Local:
    x = run.x
    for part in (layer.inner, layer.activation, layer.outer):
        x = through(part, x, run.arithmetic)
    return Local(x.offset, x.error)


@rule(layers.FixedSOCConv2d)
def _soc(layer: layers.FixedSOCConv2d, run: Run) -> Local:
    """Horner's rule: ``u = x + conv(u) / i``, with ``1 / i`` rounded, then the bias."""
    refuse_fast_convolutions(layer.weight)
    conv = _square_conv(layer.weight, layer.padding_mode)
    sides = tuple(side // layer.stride for side in run.x.shape[1:])
    size = layer.channels * math.prod(sides)
    norm = float(_norm(layer))
    absolute = absolute_norm(conv, (layer.channels, *sides))
    products = layer.weight[0].numel()
    arithmetic, u, error = run.arithmetic, run.x.reach, 0.0
    for i in range(layer.terms - 1, 0, -1):
        inside = arithmetic.rounding(products + 1, absolute * (u + error), size)
        branch = (norm * (u + error) + inside) / i
        error = (norm * error + inside) / i
        error += arithmetic.rounding(5, run.x.reach + branch, size)
        u = run.x.reach + norm * u / i
    offset = 0.0 if layer.bias is None else repeated(exact(layer.bias).cpu(), run)
    return Local(offset, error + run.rounding(1, u + error + offset))


def _norm(layer: layers.FixedSOCConv2d) -> Tensor:
    return norms.convolution(
        layer.weight,
        image_size=layer.sides,
        padding=layer.kernel_size // 2,
        padding_mode=layer.padding_mode,
    )


def _square_conv(weight: Tensor, padding_mode: str) -> nn.Conv2d:
    """The convolution that keeps the image's size."""
    channels, _, side, _ = weight.shape
    around: dict[str, Any] = {"padding": side // 2, "padding_mode": padding_mode}
    conv = nn.Conv2d(channels, channels, side, bias=False, device="meta", **around)
    conv.weight = nn.Parameter(weight.detach())
    return conv
