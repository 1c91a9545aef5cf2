"""How onelip's layers are read: through the weights that their ``forward`` uses now.

Residual layers keep the constant that they prove of themselves, which no bound of the sum of their
two ways would find.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onelip.activations import Absolute, GroupSort, MaxMin, NActivation
from onelip.chains import Elementwise, GroupSorting, LinearMap
from onelip.errors import UsageError
from onelip.layers import (
    AOCConv2d,
    AOLConv2d,
    AOLLinear,
    BCOPConv2d,
    BjorckLinear,
    BROLinear,
    CayleyLinear,
    CholeskyLinear,
    ConvexPotentialConv2d,
    ConvexPotentialLinear,
    FirstChannels,
    FixedConv2d,
    GradientStep,
    InvertibleDownsampling,
    LastLayer,
    LiResNetConv2d,
    Normalize,
    OSSNConv2d,
    RKOConv2d,
    Sandwich,
    SandwichLinear,
    ScaledAvgPool2d,
    SLLConv2d,
    SLLLinear,
    SVCMConv2d,
    ZeroPadChannels,
)
from onelip.layers.constrained import ConstrainedConv2d, ConstrainedLinear
from onelip.layers.convex_potential import ConvexPotential
from onelip.layers.fixed_conv import check_image_size, check_whole_strides
from onelip.layers.gradient_step import mirrored
from onelip.layers.sll import SLL
from onelip.lipschitz import LipschitzModule, lipschitz_bound
from onelip.norms.convolution import Pair, pair
from onelip.norms.rounding import product
from onelip.reading.branches import norm_bound
from onelip.reading.linear import (
    average,
    convolution,
    dense,
    divided,
    expect,
    moved,
    scaled,
    shifted,
)
from onelip.reading.modules import read_module, reader
from onelip.reading.torch_layers import activation, sides_of
from onelip.reading.values import Value


@reader(Normalize)
def _normalize(module: Normalize, value: Value) -> Value:
    lipschitz_bound(module)
    channels = len(module.mean)
    expect(value, f"({channels}, ...)", value.shape[0] == channels)
    shape = (-1, *(1,) * (len(value.shape) - 1))
    return divided(shifted(value, -module.mean.view(shape)), module.std.view(shape))


@reader(Absolute, NActivation)
def _between_slopes_of_one(module: LipschitzModule, value: Value) -> Value:
    lipschitz_bound(module)
    one = torch.ones((), dtype=torch.float64)
    if isinstance(module, NActivation):
        expect(value, f"({module.channels}, ...)", value.shape[0] == module.channels)
    return value.activated(Elementwise(module, -one, one))


@reader(GroupSort, MaxMin)
def _sort(module: GroupSort | MaxMin, value: Value) -> Value:
    size = module.group_size if isinstance(module, GroupSort) else 2
    expect(value, f"(a multiple of {size}, ...)", value.shape[0] % size == 0)
    return value.activated(GroupSorting(module, size))


@reader(ZeroPadChannels, FirstChannels, InvertibleDownsampling)
def _moves(module: LipschitzModule, value: Value) -> Value:
    return moved(value, module)


@reader(ScaledAvgPool2d)
def _scaled_sum(module: ScaledAvgPool2d, value: Value) -> Value:
    stride = pair(module.stride)
    sums = average(value, pair(module.kernel_size), stride, (0, 0), divisor=1.0)
    return scaled(sums, torch.tensor(module.scale, dtype=torch.float64))


@reader(LastLayer)
def _last_layer(module: LastLayer, value: Value) -> Value:
    return dense(value, module.weight, module.bias)


@reader(AOLLinear, BjorckLinear, BROLinear, CayleyLinear, CholeskyLinear)
def _constrained_linear(module: ConstrainedLinear, value: Value) -> Value:
    return dense(value, module.weight, module.bias)


@reader(AOCConv2d, AOLConv2d, BCOPConv2d, LiResNetConv2d, OSSNConv2d, RKOConv2d, SVCMConv2d)
def _constrained_conv(module: ConstrainedConv2d, value: Value) -> Value:
    weight, dilation = module.weight, pair(module.dilation)
    _check_image(value, module.image_size, pair(module.stride), module.padding_mode)
    return convolution(
        value,
        weight,
        module.bias,
        stride=pair(module.stride),
        sides=sides_of(weight, module.padding, dilation),
        dilation=dilation,
        groups=module.groups,
        circular=module.padding_mode == "circular",
    )


@reader(FixedConv2d)
def _fixed_conv(module: FixedConv2d, value: Value) -> Value:
    stride, mode = pair(module.conv.stride), module.conv.padding_mode
    _check_image(value, module.image_size, stride, mode)
    return read_module(module.conv, value)


@reader(ConvexPotentialLinear, ConvexPotentialConv2d)
def _convex_potential(module: ConvexPotential, value: Value) -> Value:
    return _gradient_step(module, value, module.weight, module.bias, module.step())


@reader(SLLLinear, SLLConv2d)
def _sll(module: SLL, value: Value) -> Value:
    weight, bias = module.rows()
    return _gradient_step(module, value, weight, bias, weight.new_ones(()))


@reader(GradientStep)
def _exported_step(module: GradientStep, value: Value) -> Value:
    inner = module.inner
    step = inner.weight.new_ones(()) if module.step is None else module.step
    return _gradient_step(module, value, inner.weight, inner.bias, step)


def _gradient_step(
    module: ConvexPotential | SLL | GradientStep,
    value: Value,
    weight: Tensor,
    bias: Tensor | None,
    step: Tensor,
) -> Value:
    """``x - step W^T activation(W x + b)``."""
    _check_image(value, module.image_size, (1, 1), module.padding_mode)
    hidden = _linear(value, weight, bias, module.padding_mode)
    adjoint = _linear(
        scaled(Value.entering(hidden.shape, weight), -step),
        mirrored(weight),
        None,
        module.padding_mode,
    )
    return _proved(module, value, hidden, adjoint.linear, value.linear)


def _linear(value: Value, weight: Tensor, bias: Tensor | None, padding_mode: str) -> Value:
    if weight.ndim == 2:
        return dense(value, weight, bias)
    sides = sides_of(weight, weight.shape[-1] // 2, (1, 1))
    return convolution(value, weight, bias, sides=sides, circular=padding_mode == "circular")


@reader(Sandwich)
def _sandwich(module: Sandwich, value: Value) -> Value:
    hidden = dense(value, module.inner.weight, module.inner.bias)
    outer = dense(Value.entering(hidden.shape, value.point.like), module.outer.weight, None)
    return _proved(module, value, hidden, outer.linear, None)


@reader(SandwichLinear)
def _sandwich_linear(module: SandwichLinear, value: Value) -> Value:
    weight, outer, _ = module.maps()
    hidden = dense(value, weight, module.bias)
    behind = dense(Value.entering(hidden.shape, value.point.like), outer, None)
    return _proved(module, value, hidden, behind.linear, None)


def _proved(
    module: Any,
    value: Value,
    hidden: Value,
    outer: LinearMap,
    skip: LinearMap | None,
) -> Value:
    """A block with the constant that its layer proves, times that of the map in front of it."""
    constant = product([lipschitz_bound(module), norm_bound(value.linear)])
    plain = activation(module.activation, hidden).point.block
    assert plain is not None
    return value.behind(replace(plain, outer=outer, skip=skip, constant=float(constant)))


def _check_image(value: Value, size: Pair | None, stride: Pair, mode: str) -> None:
    image = torch.empty(1, *value.shape, device="meta")
    try:
        check_image_size(image, size)
        check_whole_strides(image, stride, mode)
    except ValueError as error:
        raise UsageError(str(error)) from error
