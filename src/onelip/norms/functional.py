"""Norms of torch's convolutions, with torch's arguments in torch's order.

Each function bounds the linear map that the function of ``torch.nn.functional`` of the same name
computes with this weight, on inputs of one size or of every size. A padding mode goes with it, as
in the modules of ``torch.nn``.
"""

from dataclasses import replace

from torch import Tensor

from onelip.norms.axes import Axis, Size, axes_of, per_axis
from onelip.norms.convolutions import along, check_kernel, norm_along

Ints = int | tuple[int, ...]


def conv1d(
    weight: Tensor,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    input_size: Size = None,
) -> Tensor:
    """Proved upper bound of the norm of ``torch.nn.functional.conv1d`` as a linear map.

    Bound: never below the exact norm; how close, ``onelip.norms.convolution`` says.
    Shape: ``weight`` is ``(out_channels, in_channels / groups, taps)``.

    Args:
        weight: the kernel, of any real floating dtype.
        stride: step of the window.
        padding: places on each side, ``"same"`` or ``"valid"``.
        dilation: distance of the taps.
        groups: blocks of channels.
        padding_mode: ``"zeros"``, ``"circular"``, ``"reflect"`` or ``"replicate"``.
        input_size: length of the input; None for a bound that holds for every length.

    Raises:
        ValueError: arguments that torch refuses, too.
        UnboundedModuleError: an unknown padding mode.
        NonFiniteError: a weight is infinite or NaN.

    Example:
        >>> import torch
        >>> conv1d(torch.tensor([[[3.0, 4.0]]]), stride=2)  # windows that do not overlap
        tensor(5.0000, dtype=torch.float64)
    """
    return norm_along(
        weight,
        groups,
        dimensions=1,
        size=input_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
    )


def conv2d(
    weight: Tensor,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    input_size: Size = None,
) -> Tensor:
    """Proved upper bound of the norm of ``torch.nn.functional.conv2d`` as a linear map.

    Bound, arguments, errors: as those of ``conv1d``; a pair where the axes differ.

    Example:
        >>> import torch
        >>> conv2d(torch.ones(1, 1, 2, 2), input_size=(2, 2))
        tensor(2.0000, dtype=torch.float64)
    """
    return norm_along(
        weight,
        groups,
        dimensions=2,
        size=input_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
    )


def conv3d(
    weight: Tensor,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    input_size: Size = None,
) -> Tensor:
    """Proved upper bound of the norm of ``torch.nn.functional.conv3d`` as a linear map.

    Bound, arguments, errors: as those of ``conv1d``; a triple where the axes differ.

    Example:
        >>> import torch
        >>> conv3d(torch.ones(1, 1, 2, 2, 1), stride=2)
        tensor(2.0000, dtype=torch.float64)
    """
    return norm_along(
        weight,
        groups,
        dimensions=3,
        size=input_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
    )


def conv_transpose1d(  # noqa: PLR0917 torch's order
    weight: Tensor,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    input_size: Size = None,
) -> Tensor:
    """Proved upper bound of the norm of ``torch.nn.functional.conv_transpose1d``.

    It is the adjoint of the convolution with the same weight, or of a part of it.

    Bound: never below the exact norm; how close, ``onelip.norms.convolution`` says.
    Shape: ``weight`` is ``(in_channels, out_channels / groups, taps)``.

    Args:
        weight: the kernel, of any real floating dtype.
        stride: distance of the windows in the output.
        padding: places that are cut off the output on each side.
        output_padding: places that the output has more, at its end.
        groups: blocks of channels.
        dilation: distance of the taps.
        input_size: length of the input; None for a bound that holds for every length.

    Raises:
        ValueError: arguments that torch refuses, too.
        NonFiniteError: a weight is infinite or NaN.

    Example:
        >>> import torch
        >>> conv_transpose1d(torch.tensor([[[3.0, 4.0]]]), stride=2)
        tensor(5.0000, dtype=torch.float64)
    """
    check_kernel(weight, groups, axes=1)
    axes = axes_of(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    return along(weight, _transposed(axes, input_size, output_padding), groups)


def conv_transpose2d(  # noqa: PLR0917 torch's order
    weight: Tensor,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    input_size: Size = None,
) -> Tensor:
    """Proved upper bound of the norm of ``torch.nn.functional.conv_transpose2d``.

    Bound, arguments, errors: as those of ``conv_transpose1d``; a pair where the axes differ.

    Example:
        >>> import torch
        >>> conv_transpose2d(torch.ones(1, 1, 2, 2), stride=2)
        tensor(2.0000, dtype=torch.float64)
    """
    check_kernel(weight, groups, axes=2)
    axes = axes_of(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    return along(weight, _transposed(axes, input_size, output_padding), groups)


def conv_transpose3d(  # noqa: PLR0917 torch's order
    weight: Tensor,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
    *,
    input_size: Size = None,
) -> Tensor:
    """Proved upper bound of the norm of ``torch.nn.functional.conv_transpose3d``.

    Bound, arguments, errors: as those of ``conv_transpose1d``; a triple where the axes differ.

    Example:
        >>> import torch
        >>> conv_transpose3d(torch.ones(1, 1, 2, 2, 1), stride=2)
        tensor(2.0000, dtype=torch.float64)
    """
    check_kernel(weight, groups, axes=3)
    axes = axes_of(weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
    return along(weight, _transposed(axes, input_size, output_padding), groups)


def _transposed(axes: list[Axis], size: Size, output_padding: Ints) -> list[Axis]:
    """Axes of the convolution whose adjoint a transposed one is, or is a part of."""
    sizes = per_axis(size, len(axes), least=1, what="input_size")
    more = per_axis(output_padding, len(axes), what="output_padding")
    return [_turned(axis, n, m or 0) for axis, n, m in zip(axes, sizes, more, strict=True)]


def _turned(axis: Axis, size: int | None, more: int) -> Axis:
    if more >= max(axis.stride, axis.dilation):
        raise ValueError(
            f"output_padding must be below stride or dilation, got {more} for "
            f"{axis.stride} and {axis.dilation}"
        )
    if size is None:
        return axis
    outputs = (size - 1) * axis.stride - axis.before - axis.after + axis.reach + more
    if outputs < 1:
        raise ValueError(f"padding={axis.before} leaves no output of {size} inputs")
    return replace(axis, size=outputs, limit=size)
