"""A plain convolution that refuses images for which its bound is not proved; used by ``export``."""

import torch
from torch import Tensor, nn

from onelip import norms
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError
from onelip.forward_error import Local, Run, affine, refuse_fast_convolutions
from onelip.lipschitz import LipschitzModule, read_module
from onelip.lipschitz.torch_modules import padding_in_use
from onelip.norms.convolutions import Pair, pair


class FixedConv2d(LipschitzModule):
    """A plain convolution that takes only images for which its bound is proved.

    ``nn.Conv2d`` takes images of every size. A bound for all of them can be far above the bound for
    one size, above all with strides under circular padding.

    Bound: the proved norm of the kernel, on ``image_size`` or on all sides that the stride divides.
    Shape: that of ``conv``.
    Cost: that of ``conv``.

    Args:
        conv: a plain convolution.
        image_size: height and width, or None.

    Raises:
        ValueError: in ``forward``, an image for which nothing is proved.

    Example:
        >>> import torch
        >>> layer = FixedConv2d(nn.Conv2d(2, 3, 2, stride=2), image_size=(4, 4))
        >>> layer(torch.ones(1, 2, 4, 4)).shape
        torch.Size([1, 3, 2, 2])
    """

    same_in_float64 = True

    def __init__(self, conv: nn.Conv2d, *, image_size: tuple[int, int] | None) -> None:
        super().__init__()
        self.conv, self.image_size = conv, image_size

    def forward(self, x: Tensor) -> Tensor:
        """Return ``conv(x)``, after a check of the image."""
        check_image_size(x, self.image_size)
        check_whole_strides(x, pair(self.conv.stride), self.conv.padding_mode)
        y: Tensor = self.conv(x)
        return y

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring.

        Raises:
            UnboundedModuleError: the convolution is no plain ``nn.Conv2d`` any more.
        """
        conv = self.conv
        if type(conv) is not nn.Conv2d:
            raise UnboundedModuleError(f"FixedConv2d holds a {type(conv).__name__}, no nn.Conv2d")
        return norms.convolution(
            conv.weight,
            image_size=self.image_size,
            padding=padding_in_use(conv),
            padding_mode=conv.padding_mode,
            stride=conv.stride,
            dilation=conv.dilation,
            groups=conv.groups,
            whole_strides=True,
        )

    def to_chain(self, value: Value) -> Value:
        """Read the convolution, after a check of the image."""
        check_image(value, self.image_size, pair(self.conv.stride), self.conv.padding_mode)
        return read_module(self.conv, value)

    def forward_error(self, run: Run) -> Local:
        """Rounding of the sums of products."""
        refuse_fast_convolutions(self.conv.weight)
        return affine(self.conv, run)


def check_image_size(x: Tensor, expected: tuple[int, int] | None) -> None:
    """Refuse images of another size than the one for which a norm is proved.

    Raises:
        ValueError: the image has another size than expected.
    """
    size = tuple(x.shape[-2:])
    if expected is not None and size != expected:
        raise ValueError(
            f"the layer is proved for images of {expected}, got {size}: build it with that "
            "image_size"
        )


def check_whole_strides(x: Tensor, strides: tuple[int, int], padding_mode: str) -> None:
    """Refuse a stride under circular padding that does not divide the image.

    The windows would not end where they began, and would read some pixels twice.

    Raises:
        ValueError: circular padding, and a stride that does not divide the image.
    """
    height, width = x.shape[-2:]
    if padding_mode == "circular" and (height % strides[0] or width % strides[1]):
        raise ValueError(
            f"circular padding with stride {max(strides)} needs sides that it divides, got "
            f"{height} x {width}: pad the image, or use padding_mode='zeros'"
        )


def check_image(value: Value, size: Pair | None, stride: Pair, mode: str) -> None:
    """Check that a value is an image for which a layer is proved.

    Raises:
        UsageError: it has another size.
    """
    image = torch.empty(1, *value.shape, device="meta")
    try:
        check_image_size(image, size)
        check_whole_strides(image, stride, mode)
    except ValueError as error:
        raise UsageError(str(error)) from error
