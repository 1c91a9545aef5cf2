"""How onelip's layers are read: through the weights that their ``forward`` uses now."""

import torch

from onelip.chains import Elementwise, GroupSorting
from onelip.chains.linear_layers import (
    average,
    convolution,
    dense,
    divided,
    expect,
    moved,
    scaled,
    shifted,
)
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.layers import (
    Abs,
    AOCConv2d,
    AOLConv2d,
    AOLLinear,
    BCOPConv2d,
    BjorckLinear,
    BROLinear,
    CayleyLinear,
    CholeskyLinear,
    FixedConv2d,
    GroupSort,
    InvertibleDownsampling,
    LiResNetConv2d,
    MaxMin,
    MLPHead,
    NActivation,
    Normalize,
    OSSNConv2d,
    ProjectedOSSNConv2d,
    Rescale,
    RKOConv2d,
    ScaledAvgPool2d,
    SVCMConv2d,
    TruncateChannels,
    UnitNormLinear,
    ZeroPadChannels,
)
from onelip.layers.constrained import ConstrainedConv2d, ConstrainedLinear
from onelip.layers.fixed_conv import check_image_size, check_whole_strides
from onelip.lipschitz import LipschitzModule, lipschitz_bound
from onelip.norms.convolution import Pair, pair
from onelip.reading.modules import read_module, reader
from onelip.reading.torch_layers import sides_of


@reader(Rescale)
def _rescale(module: Rescale, value: Value) -> Value:
    return scaled(value, module.factor)


@reader(Normalize)
def _normalize(module: Normalize, value: Value) -> Value:
    lipschitz_bound(module)
    channels = len(module.mean)
    expect(value, f"({channels}, ...)", value.shape[0] == channels)
    shape = (-1, *(1,) * (len(value.shape) - 1))
    return divided(shifted(value, -module.mean.view(shape)), module.std.view(shape))


@reader(Abs, NActivation)
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


@reader(ZeroPadChannels, TruncateChannels, InvertibleDownsampling)
def _moves(module: LipschitzModule, value: Value) -> Value:
    return moved(value, module)


@reader(ScaledAvgPool2d)
def _scaled_sum(module: ScaledAvgPool2d, value: Value) -> Value:
    stride = pair(module.stride)
    means = average(value, pair(module.kernel_size), stride, (0, 0))
    return scaled(means, torch.tensor(module.scale, dtype=torch.float64))


@reader(UnitNormLinear)
def _last_layer(module: UnitNormLinear, value: Value) -> Value:
    return dense(value, module.weight, module.bias)


@reader(MLPHead)
def _mlp_head(module: MLPHead, value: Value) -> Value:
    for part in module.parts():
        value = read_module(part, value)
    return value


@reader(AOLLinear, BjorckLinear, BROLinear, CayleyLinear, CholeskyLinear)
def _constrained_linear(module: ConstrainedLinear, value: Value) -> Value:
    return dense(value, module.weight, module.bias)


@reader(AOCConv2d, AOLConv2d, BCOPConv2d, LiResNetConv2d, OSSNConv2d)
@reader(ProjectedOSSNConv2d, RKOConv2d, SVCMConv2d)
def _constrained_conv(module: ConstrainedConv2d, value: Value) -> Value:
    weight, dilation = module.weight, pair(module.dilation)
    check_image(value, module.image_size, pair(module.stride), module.padding_mode)
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
    check_image(value, module.image_size, stride, mode)
    return read_module(module.conv, value)


def check_image(value: Value, size: Pair | None, stride: Pair, mode: str) -> None:
    """Images for which a layer is proved.

    Raises:
        UsageError: it is another size.
    """
    image = torch.empty(1, *value.shape, device="meta")
    try:
        check_image_size(image, size)
        check_whole_strides(image, stride, mode)
    except ValueError as error:
        raise UsageError(str(error)) from error
