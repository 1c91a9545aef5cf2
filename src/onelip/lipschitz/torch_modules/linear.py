"""Records of torch's linear maps: matrices and convolutions."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip import norms
from onelip.chains.linear_layers import (
    Sides,
    convolution,
    dense,
    expect,
    moved,
    opaque,
    reshaped,
    transposed_convolution,
    volume_convolution,
)
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import Local, Run, affine, refuse_fast_convolutions
from onelip.lipschitz.records import RECORDS, ModuleRecord
from onelip.norms.convolutions import Pair, pair

_Padding = int | tuple[int, ...] | str


def norm_of(module: nn.Module, weight: Tensor) -> Tensor:
    """Norm of torch's linear layer with another weight in its place, for inputs of every size.

    Args:
        module: of one of torch's classes of linear layers, parametrizations aside.
        weight: laid out like the module's own.
    """
    kind = type_before_parametrizations(module)
    if kind is nn.Linear:
        return norms.dense(weight)
    numbers = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "groups")}
    if kind in _TRANSPOSED:
        return _TRANSPOSED[kind](weight, **numbers)
    numbers["padding"] = padding_in_use(module)
    return _CONVOLUTIONS[kind](weight, padding_mode=module.padding_mode, **numbers)


_CONVOLUTIONS: dict[Any, Callable[..., Tensor]] = {
    nn.Conv1d: norms.conv1d,
    nn.Conv2d: norms.conv2d,
    nn.Conv3d: norms.conv3d,
}
_TRANSPOSED: dict[Any, Callable[..., Tensor]] = {
    nn.ConvTranspose1d: norms.conv_transpose1d,
    nn.ConvTranspose2d: norms.conv_transpose2d,
    nn.ConvTranspose3d: norms.conv_transpose3d,
}


def _bound(module: Any) -> Tensor:
    """Bound for every size of the input, since the module does not know its own."""
    return norm_of(module, module.weight)


def _linear_chain(module: nn.Linear, value: Value) -> Value:
    return dense(value, module.weight, module.bias)


def _linear_error(module: nn.Linear, run: Run) -> Local:
    return affine(module, run)


def _conv2d_chain(module: nn.Conv2d, value: Value) -> Value:
    """Convolution with the padding on each side that torch takes."""
    value, padding = _padded(module, value, padding_in_use(module))
    return convolution(
        value,
        module.weight,
        module.bias,
        stride=pair(module.stride),
        sides=sides_of(module.weight, padding, pair(module.dilation)),
        dilation=pair(module.dilation),
        groups=module.groups,
        circular=module.padding_mode == "circular",
    )


def _padded(module: Any, value: Value, padding: _Padding) -> tuple[Value, _Padding]:
    """The value with its reflections or copies of its border, and the padding that is left."""
    if module.padding_mode in ("zeros", "circular"):
        return value, padding
    around = module._reversed_padding_repeated_twice
    return moved(value, lambda x: F.pad(x, around, mode=module.padding_mode)), "valid"


def _conv1d_chain(module: nn.Conv1d, value: Value) -> Value:
    """Convolution of an image of one row."""
    expect(value, f"({module.in_channels}, length)", len(value.shape) == 2)
    weight, dilation = module.weight[:, :, None], (1, module.dilation[0])
    value, padding = _padded(module, value, _of_one_row(padding_in_use(module)))
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


def _conv3d_chain(module: nn.Conv3d, value: Value) -> Value:
    """Convolution padded with zeros; others are what they prove for every size."""
    if module.padding_mode != "zeros":
        return opaque(module, float(_bound(module)), value)
    depth, height, width = module.dilation
    return volume_convolution(
        value,
        module.weight,
        module.bias,
        stride=module.stride,  # type: ignore[arg-type]
        sides=sides_along(module.weight, module.padding, module.dilation),
        dilation=(depth, height, width),
        groups=module.groups,
    )


def _convolution_error(module: nn.Conv2d, run: Run) -> Local:
    refuse_fast_convolutions(module.weight)
    return affine(module, run)


def _conv_transpose2d_chain(module: nn.ConvTranspose2d, value: Value) -> Value:
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


def _conv_transpose2d_error(module: nn.ConvTranspose2d, run: Run) -> Local:
    refuse_fast_convolutions(module.weight)
    return affine(module, run)


def padding_in_use(module: Any) -> str | tuple[int, ...]:
    """Padding that ``forward`` takes, as the constructor takes it.

    Torch notes the pixels that it wraps at construction, so a padding that was set later, or a
    kernel of another size, counts under zero padding only.

    Raises:
        UnboundedModuleError: more pixels are wrapped on one side, and not those of ``"same"``.
    """
    if module.padding_mode == "zeros":
        padding: str | tuple[int, ...] = module.padding
        return padding
    noted = module._reversed_padding_repeated_twice  # left, right, top, bottom
    sides = list(zip(noted[::2], noted[1::2], strict=True))[::-1]
    if all(before == after for before, after in sides):
        return tuple(before for before, _ in sides)
    totals = [d * (k - 1) for d, k in zip(module.dilation, module.weight.shape[2:], strict=True)]
    if sides == [(total // 2, total - total // 2) for total in totals]:
        return "same"
    raise UnboundedModuleError(
        f"{type_before_parametrizations(module).__name__} wraps more pixels on one side, for a "
        "kernel that it does not have: build it with its kernel's size, or with an int padding"
    )


def _of_one_row(padding: str | tuple[int, ...]) -> str | Pair:
    """Padding of a sequence as that of an image of one row."""
    return padding if isinstance(padding, str) else (0, padding[0])


def sides_along(
    weight: Tensor, padding: Sequence[int] | str, dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """Numbers before and after along each axis; ``"same"`` puts the odd one after."""
    if padding == "valid":
        return [(0, 0)] * len(dilation)
    if isinstance(padding, str):
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    return [(number, number) for number in padding]


def sides_of(weight: Tensor, padding: int | tuple[int, ...] | str, dilation: Pair) -> Sides:
    """Pixels before and after, along two axes."""
    both = padding if isinstance(padding, str) else pair(padding)
    rows, columns = sides_along(weight, both, dilation)
    return rows, columns


RECORDS |= {
    nn.Linear: ModuleRecord(
        lipschitz_bound=_bound, to_chain=_linear_chain, forward_error=_linear_error
    ),
    nn.Conv1d: ModuleRecord(
        lipschitz_bound=_bound, to_chain=_conv1d_chain, forward_error=_convolution_error
    ),
    nn.Conv2d: ModuleRecord(
        lipschitz_bound=_bound, to_chain=_conv2d_chain, forward_error=_convolution_error
    ),
    nn.ConvTranspose2d: ModuleRecord(
        lipschitz_bound=_bound,
        to_chain=_conv_transpose2d_chain,
        forward_error=_conv_transpose2d_error,
    ),
    nn.Conv3d: ModuleRecord(lipschitz_bound=_bound, to_chain=_conv3d_chain),
    nn.ConvTranspose1d: ModuleRecord(lipschitz_bound=_bound),
    nn.ConvTranspose3d: ModuleRecord(lipschitz_bound=_bound),
}
