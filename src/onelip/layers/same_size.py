"""Linear maps whose adjoint has the mirrored weight: matrices, and same-size convolutions.

Such convolutions have odd kernels and stride 1, and equal padding on all sides.
"""

from torch import Tensor
from torch.nn import functional as F

from onelip.norms.convolutions import Pair, check_padding_mode, is_circular, pair


def applied(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding_mode: str = "zeros"
) -> Tensor:
    """Return ``W x + b`` for a matrix, or for a kernel whose convolution keeps the image's size."""
    if weight.ndim == 2:
        return F.linear(x, weight, bias)
    return convolve(x, weight, bias, padding_mode)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, padding_mode: str, groups: int = 1
) -> Tensor:
    """Convolve as ``nn.Conv2d`` does, with zero or circular padding that keeps the image's size."""
    image, padding = padded(x, weight.shape[-1] // 2, padding_mode)
    return F.conv2d(image, weight, bias, padding=padding, groups=groups)


def padded(x: Tensor, around: int, padding_mode: str) -> tuple[Tensor, int]:
    """Return the image, padded if circular, and the zero padding left to the convolution."""
    if not is_circular(padding_mode) or not around:
        return x, around
    return F.pad(x, (around,) * 4, mode="circular"), 0


def checked_image_size(
    kernel_size: int, image_size: int | tuple[int, int], padding_mode: str
) -> Pair:
    """Return height and width, after a check that the adjoint of ``convolve`` is its mirror.

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
