"""Level float: which networks execute, operation by operation, what their bundle says.

A chain is the function of a network. Where reading merges or reorders operations (a mean and a std,
averages, factors of a batch normalisation) torch rounds elsewhere than the records say. So parts
are taken from a table of those whose records are their operations, and all else is refused.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from onelip import layers
from onelip.bounds.layer_product import flattened
from onelip.chains import Shape
from onelip.errors import NotApplicableError, UsageError
from onelip.layers.fixed_conv import FixedConv2d
from onelip.layers.gradient_step import GradientStep
from onelip.layers.skew_exponential import FixedSOCConv2d
from onelip.norms.convolutions import pair
from onelip.proofs.maps import Record

MOVES: tuple[type[nn.Module], ...] = (
    *(nn.Flatten, nn.Unflatten, nn.ZeroPad2d, nn.PixelUnshuffle, nn.PixelShuffle, nn.Identity),
    *(nn.ChannelShuffle, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
    *(layers.ZeroPadChannels, layers.TruncateChannels, layers.InvertibleDownsampling),
    *(layers.InvertibleUpsampling, layers.ChannelShuffle),
)
"""Copies: nothing is computed."""

CHOICES: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.PReLU, layers.Abs, nn.MaxPool2d),
    *(layers.MaxMin, layers.GroupSort, layers.ChannelMaxPool),
)
"""Comparisons, and products by slopes."""

SUMS: tuple[type[nn.Module], ...] = (
    *(nn.Linear, nn.Conv2d, nn.ConvTranspose2d, FixedConv2d, FixedSOCConv2d, GradientStep),
)
"""Sums of products, in the dtype of the weights or, in ``layers.Accumulated``, in float64."""


def faithful(model: nn.Module, shape: Shape) -> tuple[nn.Sequential, Record]:
    """An exported network whose records are its operations, and the level that it is executed at.

    The network is the same; averages over windows are written as sums and a factor.

    Args:
        model: exported, in eval mode.
        shape: of one input.

    Raises:
        NotApplicableError: a part executes other operations than its records say, or nothing is
            known of it; the message names it.
        UsageError: weights of several dtypes, or not in float32 or float64.
    """
    dtype = _dtype(model)
    parts = flattened(model)
    wide = any(type(part) is layers.Accumulated for _, part in parts)
    x, found = torch.zeros(1, *shape, dtype=dtype), OrderedDict[str, nn.Module]()
    for place, (name, part) in enumerate(parts):
        reason = _reason(part, wide, place == 0)
        if reason:
            raise NotApplicableError(
                f"level float knows no {name or type(part).__name__}: {reason}"
            )
        averages = type(part) is layers.ScaledAvgPool2d
        found[str(place)] = _as_sums(part, x.shape[1], dtype) if averages else part
        with torch.no_grad():
            x = part(x)
    names = str(dtype).removeprefix("torch.")
    level = {"kind": "float", "numbers": names, "sums": "float64" if wide else names}
    return nn.Sequential(found).eval(), level


def _dtype(model: nn.Module) -> torch.dtype:
    """The dtype of all numbers of a model; float32 without any."""
    numbers = [*model.parameters(), *model.buffers()]
    dtypes = {n.dtype for n in numbers if n.is_floating_point()} or {torch.float32}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise UsageError(f"level float is for weights in float32 or float64, not {names}")
    return dtypes.pop()


def _reason(part: Any, wide: bool, first: bool) -> str:
    """Why a part executes something else than its records; empty if it does not."""
    kind = type(part)
    if kind in MOVES or kind in CHOICES:
        return ""
    if kind not in _RULES:
        return f"the records of {kind.__name__} are not known to be its operations"
    return _RULES[kind](part, wide, first)


def _summed(part: Any, wide: bool, _: bool) -> str:
    """Sums of products; the activation of a step decides."""
    if wide:
        return "its sums are in float32 beside others in float64"
    return _reason(part.activation, wide=False, first=False) if type(part) is GradientStep else ""


def _accumulated(part: Any, _: bool, first: bool) -> str:
    return _reason(part.part, wide=False, first=first)


def _leaky(part: Any, _: bool, __: bool) -> str:
    """A Python number is rounded where it is used."""
    number = torch.tensor(float(part.negative_slope), dtype=torch.float64)
    same = torch.equal(number, number.float().double())
    return "" if same else f"the slope {float(number)} is no number of float32, and is rounded"


def _normalised(part: Any, _: bool, first: bool) -> str:
    powers = first and _powers_of_two(part.std)
    return "" if powers else "(x - mean) / std is only known with powers of two, at the start"


def _averaged(part: Any, wide: bool, _: bool) -> str:
    if not _powers_of_two(torch.tensor([*map(float, pair(part.kernel_size)), part.scale])):
        return "windows whose size or scale is no power of two are divided by it"
    return "its sums are in float32 beside others in float64" if wide else ""


_RULES: dict[type[nn.Module], Callable[[Any, bool, bool], str]] = {
    **dict.fromkeys(SUMS, _summed),
    layers.Accumulated: _accumulated,
    nn.LeakyReLU: _leaky,
    layers.Normalize: _normalised,
    layers.ScaledAvgPool2d: _averaged,
}
"""Parts whose records are their operations only if this returns no reason against it."""


def _powers_of_two(numbers: Tensor) -> bool:
    mantissa = torch.frexp(numbers.detach().double()).mantissa.abs()
    return bool((mantissa == 0.5).all())


def _as_sums(pool: Any, channels: int, dtype: torch.dtype) -> nn.Module:
    """Averages over windows as sums and a factor, which is a power of two."""
    sides, stride = pair(pool.kernel_size), pair(pool.stride)
    sums = nn.Conv2d(channels, channels, sides, stride, groups=channels, bias=False, dtype=dtype)
    nn.init.ones_(sums.weight)
    factor = math.ldexp(float(pool.scale), -sum(int(math.log2(side)) for side in sides))
    return nn.Sequential(sums, layers.Rescale(factor, trained=False, dtype=dtype))
