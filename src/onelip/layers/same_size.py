"""Linear maps whose adjoint has the mirrored weight: matrices, and same-size convolutions.

Those convolutions have odd kernels and stride 1, and are padded on all sides alike.
"""

from torch import Tensor
from torch.nn import functional as F

from onelip.norms.convolutions import Pair, check_padding_mode, pair


def applied(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding_mode: str = "zeros"
) -> Tensor:
    """``W x + b`` of a matrix, or of a kernel whose convolution keeps the image's size."""
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    return convolve(x, weight, bias, padding_mode)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding_mode: str, groups: int = 1
) -> Tensor:
    """``nn.Conv2d`` with zeros or the other side of the image around it."""
    image, padding = padded(x, weight.shape[-1] // 2, padding_mode)
    return F.conv2d(image, weight, bias, padding=padding, groups=groups)


def padded(x: Tensor, around: int, padding_mode: str) -> tuple[Tensor, int]:
    """An image, and the zeros that its convolution is still to add."""
    if padding_mode == "zeros" or not around:
        return x, around
    return F.pad(x, (around,) * 4, mode="circular"), 0


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
