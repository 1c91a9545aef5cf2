"""Keyword arguments that the constructors of layers share, each described once.

A layer that takes fewer says so in its signature, ``**options: Unpack[LayerOptions]``, and refuses
others with a ``TypeError`` that names them.
"""

from typing import TypedDict

import torch


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


class KernelOptions(LayerOptions, total=False):
    """``LayerOptions`` of convolutions whose weight is a kernel.

    Attributes:
        padding: pixels on each side, ``"same"`` or ``"valid"``, as in ``nn.Conv2d``. None, the
            default, keeps the image's size for stride 1 and divides it by the stride otherwise.
        padding_mode: ``"circular"``, the default, under which kernels can be orthogonal, or
            ``"zeros"``. (The default of residual layers, which are not, is ``"zeros"``.)
        dilation: distance of the taps; 1 by default.
        groups: blocks of channels; 1 by default.
    """

    padding: int | str | None
    padding_mode: str
    dilation: int
    groups: int


class Conv2dOptions(KernelOptions, total=False):
    """``KernelOptions`` of convolutions that take images of every size.

    Attributes:
        image_size: height and width, on which the bound is taken; None, the default, for every
            size. With one, ``forward`` refuses other images.
    """

    image_size: int | tuple[int, int] | None


def placed(options: FactoryOptions) -> FactoryOptions:
    """Return the device and the dtype among the options of a layer."""
    return {"device": options.get("device"), "dtype": options.get("dtype")}
