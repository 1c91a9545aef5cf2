"""How onelip's layers are read: through the weights that their ``forward`` uses now.

Residual layers keep the constant that they prove of themselves, which no bound of the sum of their
two ways would find.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip.activations import Absolute, GroupSort, MaxMin, NActivation
from onelip.chains import (
    Block,
    Elementwise,
    GroupSorting,
    LinearMap,
    Nonlinearity,
    composed,
    identity,
)
from onelip.errors import UsageError
from onelip.layers.channels import FirstChannels, InvertibleDownsampling, ZeroPadChannels
from onelip.layers.constrained import ConstrainedConv2d, ConstrainedLayer, ConstrainedLinear
from onelip.layers.convex_potential import (
    ConvexPotential,
    ConvexPotentialConv2d,
    ConvexPotentialLinear,
)
from onelip.layers.fixed_conv import FixedConv2d, check_image_size, check_whole_strides
from onelip.layers.gradient_step import GradientStep, mirrored
from onelip.layers.last_layer import LastLayer
from onelip.layers.normalize import Normalize
from onelip.layers.pooling import ScaledAvgPool2d
from onelip.layers.sll import SLLConv2d, SLLLinear
from onelip.lipschitz import LipschitzModule, lipschitz_bound
from onelip.norms.convolution import pair
from onelip.norms.rounding import product
from onelip.reading.branches import norm_bound
from onelip.reading.linear import (
    UNPADDED,
    average,
    convolution,
    dense,
    divided,
    expect,
    moved,
    scaled,
    shifted,
)
from onelip.reading.modules import opaque, read_module, reader
from onelip.reading.torch_layers import activation, conv2d, sides_of
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


@reader(FixedConv2d)
def _fixed_conv(module: FixedConv2d, value: Value) -> Value:
    stride, mode = pair(module.conv.stride), module.conv.padding_mode
    _check_image(value, module.image_size, stride, mode)
    return read_module(module.conv, value)


def _check_image(
    value: Value, size: tuple[int, int] | None, stride: tuple[int, int], mode: str
) -> None:
    image = torch.empty(1, *value.shape, device="meta")
    try:
        check_image_size(image, size)
        check_whole_strides(image, stride, mode)
    except ValueError as error:
        raise UsageError(str(error)) from error
