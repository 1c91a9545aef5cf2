"""Plain torch modules with the weights and the padding of modules of other libraries."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from onelip.layers import constrained
from onelip.layers.constrained import fill
from onelip.layers.fixed_conv import FixedConv2d
from onelip.lipschitz import ModuleRecord, Rule, bound_of_part, read_module
from onelip.lipschitz.torch_modules import padding_in_use

Plain = Callable[[Any], nn.Module]


def bound_of(plain: Plain) -> Rule:
    """Return the rule of modules that compute the same as a plain one: its bound."""
    return lambda module: bound_of_part(plain(module))


def as_plain(plain: Plain, *, export: Plain) -> ModuleRecord:
    """Return the record of modules that compute the same as a plain one."""
    return ModuleRecord(
        lipschitz_bound=bound_of(plain),
        to_chain=lambda module, value: read_module(plain(module), value),
        export=export,
    )


def plain_linear(module: Any) -> nn.Linear:
    """Return ``nn.Linear`` with the module's weight and bias."""
    return constrained.plain_linear(module.weight.detach(), module.bias)


def plain_conv(module: Any) -> nn.Conv1d | nn.Conv2d:
    """Return ``nn.Conv1d`` or ``nn.Conv2d`` with the module's weight and bias.

    The kernel may be larger than the constructor's ``kernel_size``. Torch still wraps as many
    pixels as for the latter, and so does the result (``padding_in_use``).

    Raises:
        UnboundedModuleError: such a kernel wraps other amounts of pixels before and after.
    """
    weight, mode = module.weight.detach(), module.padding_mode
    padding = padding_in_use(module)
    if mode != "zeros" and not any(module._reversed_padding_repeated_twice):
        mode = "zeros"  # nothing is wrapped
    conv = _conv(module, weight, padding, mode)
    fill(conv, weight, module.bias)
    return conv


def checked_conv(module: Any) -> nn.Conv1d | nn.Conv2d | FixedConv2d:
    """Return a plain convolution, in a ``FixedConv2d`` where its proof depends on the image."""
    conv = plain_conv(module)
    if isinstance(conv, nn.Conv2d) and conv.padding_mode == "circular" and max(conv.stride) > 1:
        return FixedConv2d(conv, image_size=None)
    return conv


def _conv(module: Any, weight: Tensor, padding: Any, mode: str) -> nn.Conv1d | nn.Conv2d:
    """Return an empty plain convolution of the weight's shape and the module's settings."""
    kind: Any = nn.Conv2d if weight.ndim == 4 else nn.Conv1d
    conv: nn.Conv1d | nn.Conv2d = kind(
        weight.shape[1] * module.groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=module.stride,
        padding=padding,
        dilation=module.dilation,
        groups=module.groups,
        padding_mode=mode,
        device="meta",
    )
    return conv


def plain_conv_transpose(module: Any) -> nn.ConvTranspose2d:
    """Return ``nn.ConvTranspose2d`` with the module's weight and bias."""
    weight = module.weight.detach()
    conv = nn.ConvTranspose2d(
        weight.shape[0],
        weight.shape[1] * module.groups,
        tuple(weight.shape[2:]),
        stride=module.stride,
        padding=module.padding,
        output_padding=module.output_padding,
        groups=module.groups,
        dilation=module.dilation,
        device="meta",
    )
    fill(conv, weight, module.bias)
    return conv
