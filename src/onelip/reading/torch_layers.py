"""How torch's own modules are read."""

import copy

import torch
from torch import Tensor, nn

from onelip.chains import Elementwise
from onelip.chains.linear_layers import (
    Sides,
    average,
    convolution,
    dense,
    expect,
    moved,
    reshaped,
    standardised,
    transposed_convolution,
)
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.lipschitz import RULES
from onelip.norms.convolution import Pair, check_padding_mode, pair
from onelip.norms.rounding import exact
from onelip.norms.slopes import SLOPES
from onelip.reading.modules import reader


@reader(*SLOPES)
def activation(module: nn.Module, value: Value) -> Value:
    """Elementwise, never in place: a block needs what it takes once more."""
    if type(module) is nn.Identity:
        return value
    if getattr(module, "inplace", False):
        module = copy.copy(module)
        vars(module)["inplace"] = False
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return value.activated(_prelu(module, value))
    return value.activated(Elementwise.of(module))


def _prelu(module: nn.PReLU, value: Value) -> Elementwise:
    """Slopes by channel."""
    expect(value, f"({module.num_parameters}, ...)", value.shape[0] == module.num_parameters)
    slopes = exact(module.weight).cpu().view(-1, *(1,) * (len(value.shape) - 1))
    slopes = slopes.expand(value.shape)
    return Elementwise(module, slopes.clamp(max=1), slopes.clamp(min=1))


@reader(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
def _dropout(module: nn.Module, value: Value) -> Value:
    RULES[type(module)](module)
    return value


@reader(nn.Linear)
def _linear(module: nn.Linear, value: Value) -> Value:
    return dense(value, module.weight, module.bias)


@reader(nn.Conv2d)
def conv2d(module: nn.Conv2d, value: Value) -> Value:
    """With the padding on each side that torch takes."""
    check_padding_mode(module.padding_mode)
    return convolution(
        value,
        module.weight,
        module.bias,
        stride=pair(module.stride),
        sides=sides_of(module.weight, module.padding, pair(module.dilation)),
        dilation=pair(module.dilation),
        groups=module.groups,
        circular=module.padding_mode == "circular",
    )


@reader(nn.Conv1d)
def _conv1d(module: nn.Conv1d, value: Value) -> Value:
    """As an image of one row."""
    check_padding_mode(module.padding_mode)
    expect(value, f"({module.in_channels}, length)", len(value.shape) == 2)
    weight, dilation = module.weight[:, :, None], (1, module.dilation[0])
    padding = module.padding if isinstance(module.padding, str) else (0, module.padding[0])
    image = convolution(
        reshaped(value, (value.shape[0], 1, value.shape[1])),
        weight,
        module.bias,
        stride=(1, module.stride[0]),
        sides=sides_of(weight, padding, dilation),
        dilation=dilation,
        groups=module.groups,
        circular=module.padding_mode == "circular",
    )
    return reshaped(image, (image.shape[0], image.shape[2]))


@reader(nn.ConvTranspose2d)
def _conv_transpose2d(module: nn.ConvTranspose2d, value: Value) -> Value:
    return transposed_convolution(
        value,
        module.weight,
        module.bias,
        stride=pair(module.stride),
        padding=pair(module.padding),  # type: ignore[arg-type]
        output_padding=pair(module.output_padding),
        groups=module.groups,
        dilation=pair(module.dilation),
    )


def sides_of(weight: Tensor, padding: int | tuple[int, ...] | str, dilation: Pair) -> Sides:
    """Pixels before and behind; ``"same"`` puts the odd one behind."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if isinstance(padding, str):
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        rows, columns = ((total // 2, total - total // 2) for total in totals)
        return rows, columns
    height, width = pair(padding)
    return (height, height), (width, width)


@reader(nn.Flatten)
def _flatten(module: nn.Flatten, value: Value) -> Value:
    return flattened(value, module.start_dim, module.end_dim)


def flattened(value: Value, start: int, end: int) -> Value:
    """Axes in one, counted with the batch as ``torch.flatten`` does."""
    axes = len(value.shape) + 1
    start, end = start % axes, end % axes
    if start == 0 or end < start:
        raise UsageError(f"flattens the batch, or nothing: start_dim={start}, end_dim={end}")
    middle = torch.Size(value.shape[start - 1 : end]).numel()
    return reshaped(value, (*value.shape[: start - 1], middle, *value.shape[end:]))


@reader(nn.Unflatten, nn.ZeroPad2d, nn.PixelUnshuffle, nn.PixelShuffle, nn.ChannelShuffle)
def _moves(module: nn.Module, value: Value) -> Value:
    return moved(value, module)


@reader(nn.AvgPool2d)
def average_pool(module: nn.AvgPool2d, value: Value) -> Value:
    """Where every window is divided by the same number."""
    RULES[nn.AvgPool2d](module)
    return average(
        value,
        pair(module.kernel_size),
        pair(module.stride),
        pair(module.padding),
        module.divisor_override,
    )


@reader(nn.AdaptiveAvgPool2d)
def adaptive_pool(module: nn.AdaptiveAvgPool2d, value: Value) -> Value:
    """Where the windows do not overlap and are all of the same size."""
    expect(value, "(channels, height, width)", len(value.shape) == 3)
    size = module.output_size
    asked = (size, size) if size is None or isinstance(size, int) else tuple(size)
    wanted = [n if a is None else a for a, n in zip(asked, value.shape[1:], strict=True)]
    if any(n % a for a, n in zip(wanted, value.shape[1:], strict=True)):
        raise UnboundedModuleError(
            f"windows of different sizes overlap: {value.shape[1:]} does not divide into {asked}"
        )
    kernel = (value.shape[1] // wanted[0], value.shape[2] // wanted[1])
    return average(value, kernel, kernel, (0, 0))


@reader(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def _batch_norm(module: nn.BatchNorm2d, value: Value) -> Value:
    RULES[type(module)](module)
    assert module.running_mean is not None
    assert module.running_var is not None
    return standardised(
        value,
        module.running_mean,
        module.running_var,
        weight=module.weight,
        bias=module.bias,
        epsilon=module.eps,
    )
