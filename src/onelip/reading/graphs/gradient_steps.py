r"""Gradient steps, recognised in a graph by their numbers: :math:`x - h W^\top \sigma(W x + b)`.

An exported Convex Potential or SLL layer is, in a file, a convolution, an activation, another
convolution and a difference, whose sum of two ways has the bound :math:`1 + h s |W|^2`, 3 where the
layer proves 1. Nothing in the file is believed about it: the second weight is compared with the
mirrored first one, number by number, and then the proof is that of ``GradientStep``.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.chains import (
    Block,
    Composition,
    Convolution,
    Dense,
    Elementwise,
    LinearMap,
    Nonlinearity,
    Reshape,
    Scale,
)
from onelip.layers.gradient_step import gradient_step_bound, mirrored
from onelip.norms.rounding import gamma


def gradient_step_constant(
    inner: LinearMap, nonlinearity: Nonlinearity, outer: LinearMap, skip: LinearMap
) -> Tensor | None:
    r"""Bound of the step after the maps that both ways begin with, or None if it is no step.

    Args:
        inner: of the input of both ways, W at its end.
        nonlinearity: sigma, elementwise.
        outer: a number times the adjoint of W.
        skip: the way around, which must be what ``inner`` begins with.

    Returns:
        A 0-d float64 tensor: the constant of the step, without that of ``skip``.
    """
    if not isinstance(nonlinearity, Elementwise):
        return None
    common = _flat(skip)
    forth, back = _flat(inner), _flat(outer)
    shared = all(a is b for a, b in zip(common, forth, strict=False))
    linear = [part for part in back if not isinstance(part, Scale)]
    factors = [part.factor for part in back if isinstance(part, Scale)]
    if any(factor.numel() != 1 for factor in factors):
        return None
    norm: Tensor | None
    if shared and len(forth) == len(common) and not linear:  # W is the identity
        sign, norm = 1, torch.ones((), dtype=torch.float64)
    elif shared and len(forth) == len(common) + 1 and len(linear) == 1:
        sign = _adjoint_up_to_sign(forth[-1], linear[0])
        norm = forth[-1].norm() if sign else None
    else:
        return None
    if norm is None:
        return None
    step = -sign * math.prod((float(factor) for factor in factors), start=1.0)
    rounded = sum(1 + part.operations for part in back if isinstance(part, Scale))
    step *= 1 + 2 * gamma(rounded)  # products and factors; longer steps have larger bounds
    slope = float(nonlinearity.low.min()), float(nonlinearity.high.max())
    return gradient_step_bound(torch.tensor(step, dtype=torch.float64), norm, slope)


class Step(NamedTuple):
    """A block ``x - length W^T phi(W x)`` after other maps."""

    linear: Dense | Convolution
    length: float


def step_of(block: Block) -> Step | None:
    """The gradient step that a block is after the maps that it begins with, or None.

    The block is ``skip`` and then the step, number by number, for one factor, not negative.
    """
    if block.skip is None or block.outer is None:
        return None
    common, forth, back = _flat(block.skip), _flat(block.inner), _flat(block.outer)
    factors = [part for part in back if isinstance(part, Scale)]
    linear = [part for part in back if not isinstance(part, Scale)]
    shared = all(a is b for a, b in zip(common, forth, strict=False))
    if not shared or len(forth) != len(common) + 1 or len(linear) != 1 or len(factors) > 1:
        return None
    if any(part.factor.numel() != 1 or part.shift is not None for part in factors):
        return None
    if getattr(linear[0], "bias", None) is not None:
        return None
    sign = _adjoint_up_to_sign(forth[-1], linear[0])
    length = -sign * (float(factors[0].factor) if factors else 1.0)
    if length <= 0:
        return None
    assert isinstance(forth[-1], Dense | Convolution)
    return Step(forth[-1], length)


def _adjoint_up_to_sign(linear: LinearMap, other: LinearMap) -> int:
    """1 or -1 if the other map is that many times the adjoint, and 0 if it is neither."""
    if type(linear) is not type(other) or not isinstance(linear, Dense | Convolution):
        return 0
    if linear.inputs != other.outputs or linear.outputs != other.inputs:
        return 0
    if isinstance(linear, Convolution) and not pads_as_adjoint(linear, other):
        return 0
    weight, turned = other.weight, mirrored(linear.weight)  # type: ignore[attr-defined]
    if torch.equal(weight, turned):
        return 1
    return -1 if torch.equal(weight, -turned) else 0


def pads_as_adjoint(linear: Convolution, other: LinearMap) -> bool:
    """Whether the convolution with the mirrored kernel is the adjoint, as far as settings go."""
    assert isinstance(other, Convolution)
    plain = all(
        part.stride == (1, 1) and part.dilation == (1, 1) and part.groups == 1
        for part in (linear, other)
    )
    if not plain or linear.circular != other.circular:
        return False
    kernel = linear.weight.shape[2:]
    if linear.circular:
        centred = all(2 * p == k - 1 for p, k in zip(linear.padding, kernel, strict=True))
        fits = all(p <= n for p, n in zip(linear.padding, linear.inputs[1:], strict=True))
        return centred and fits and linear.padding == other.padding
    return all(
        p + q == k - 1 for p, q, k in zip(linear.padding, other.padding, kernel, strict=True)
    )


def _flat(linear: LinearMap) -> list[LinearMap]:
    """Without nesting and without identities."""
    parts = linear.maps if isinstance(linear, Composition) else (linear,)
    return [p for p in parts if not (isinstance(p, Reshape) and p.inputs == p.outputs)]
