"""Convolutions that keep the image's size."""

from torch import Tensor
from torch.nn import functional as F

from onelip.norms.convolution import Pair, check_padding_mode, pair


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding_mode: str) -> Tensor:
    """``nn.Conv2d`` with an odd kernel, of stride 1, padded on all sides alike."""
    padding = weight.shape[-1] // 2
    if padding_mode == "zeros":
        return F.conv2d(x, weight, bias, padding=padding)
    return F.conv2d(F.pad(x, (padding,) * 4, mode="circular"), weight, bias)


def checked_image_size(
    kernel_size: int, image_size: int | tuple[int, int], padding_mode: str
) -> Pair:
    """Height and width, if ``convolve`` is a linear map whose adjoint has the mirrored kernel.

    Raises:
        ValueError: an even kernel, or one that wraps around the image.
        UnboundedModuleError: another padding mode than zeros and circular.
    """
    check_padding_mode(padding_mode)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd to keep the image's size, got {kernel_size}")
    size = pair(image_size)
    if padding_mode == "circular" and kernel_size // 2 > min(size):
        raise ValueError(f"a kernel of {kernel_size} wraps around an image of {image_size}")
    return size
