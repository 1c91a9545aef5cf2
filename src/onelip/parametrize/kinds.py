"""Layers that can be parametrized, and how their weights are laid out."""

from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from onelip.errors import UsageError
from onelip.norms.axes import Axis, axes_of

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KINDS = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)


def check(module: nn.Module) -> None:
    """Check that a module is one of torch's linear layers, with a real weight of its own.

    Raises:
        UsageError: it is another one, or is parametrized already.
    """
    if is_parametrized(module, "weight"):
        raise UsageError("the weight is parametrized already: remove_parametrizations first")
    if type(module) not in KINDS:
        names = ", ".join(kind.__name__ for kind in KINDS)
        raise UsageError(f"{type(module).__name__} is none of {names}")
    weight: Any = module.weight
    if weight.is_complex():
        raise UsageError("a complex weight cannot be parametrized: use real ones")


def axes(module: Any) -> list[Axis]:
    """Return the axes of a convolution of any size; of a transposed one, those of its adjoint."""
    transposed = isinstance(module, TRANSPOSED)
    return axes_of(
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        dilation=module.dilation,
        padding_mode="zeros" if transposed else module.padding_mode,
    )
