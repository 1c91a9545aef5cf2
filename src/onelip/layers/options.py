"""Arguments that the constructors of layers share, each described once.

Keyword arguments are typed dictionaries. A layer that takes fewer says so in its signature,
``**options: Unpack[LayerOptions]``, and refuses others with a ``TypeError`` that names them.

Convolutions take the arguments of ``nn.Conv2d`` in its order, by position or by keyword:

* ``kernel_size``, ``stride``, ``dilation``: one number, or two, of rows and of columns;
* ``padding``: pixels on each side, as one number or two, ``"same"`` or ``"valid"``. None, the
  default, and ``"same"`` keep the image's size for stride 1, and divide it by the stride otherwise;
* ``groups``: blocks of channels;
* ``bias``: whether to add one number per channel;
* ``padding_mode``: ``"circular"``, the default, under which kernels can be orthogonal, or
  ``"zeros"``. (The default of residual layers, which are not, is ``"zeros"``.)
"""

import operator
from typing import TypedDict

import torch

Size = int | tuple[int, int]
"""One number for both axes, or one for rows and one for columns."""

Padding = int | tuple[int, int] | str | None
"""Pixels around an image."""


class FactoryOptions(TypedDict, total=False):
    """Device and dtype of parameters and buffers, as in torch.

    Attributes:
        device: device of the numbers; torch's current default device if none is given.
        dtype: floating dtype of the numbers; ``torch.get_default_dtype()`` if none is given.
    """

    device: torch.types.Device
    dtype: torch.dtype | None


class LayerOptions(FactoryOptions, total=False):
    """``FactoryOptions`` of layers that add a vector.

    Attributes:
        bias: whether to add one number per channel, or per feature; True by default.
    """

    bias: bool


class Conv2dOptions(FactoryOptions, total=False):
    """``FactoryOptions`` of convolutions that take images of every size.

    Attributes:
        image_size: height and width, on which the bound is taken; None, the default, for every
            size. With one, ``forward`` refuses other images.
    """

    image_size: Size | None


def placed(options: FactoryOptions) -> FactoryOptions:
    """Return the device and the dtype among the options of a layer."""
    return {"device": options.get("device"), "dtype": options.get("dtype")}


def both(value: Size, name: str) -> tuple[int, int]:
    """Return the two numbers of an argument, of rows and of columns.

    Raises:
        ValueError: they are not one or two whole numbers.
    """
    given = value if isinstance(value, tuple | list) else (value, value)
    try:
        rows, columns = map(operator.index, given)
    except (TypeError, ValueError):
        message = f"{name} must be one whole number or two, got {value!r}"
        raise ValueError(message) from None
    return rows, columns


def square(value: Size, name: str) -> int:
    """Return the one number of an argument of which both axes take the same.

    Raises:
        ValueError: two numbers that differ.
    """
    rows, columns = both(value, name)
    if rows != columns:
        raise ValueError(
            f"{name}={value} differs along the axes, which this layer cannot do: AOCConv2d, "
            "BCOPConv2d, RKOConv2d and AOLConv2d take rectangles"
        )
    return rows
