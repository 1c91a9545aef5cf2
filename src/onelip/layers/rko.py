r"""Reshaped kernel orthogonalisation (Cisse et al., 2017; Li et al., 2019).

A kernel of shape (out, in, k, k) read as a matrix of out rows has a norm M; each pixel is read by
at most :math:`\lceil k / s \rceil^2` windows at stride s, so the convolution has norm at most
:math:`\lceil k / s \rceil M`. RKO orthogonalises the matrix and divides by that factor. The
result is 1-Lipschitz, and orthogonal only for k = s.
"""

from typing import Unpack

from torch import Tensor
from typing_extensions import override

from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.options import Conv2dOptions, placed
from onelip.layers.orthogonal import (
    Orthogonalise,
    OrthogonalLayer,
    cholesky_qr,
    oriented,
    tall,
)


class RKOConv2d(OrthogonalLayer, ConstrainedConv2d):
    r"""Convolution whose reshaped kernel is orthogonal, divided by ``ceil(k / stride)``.

    Bound: the proved norm of the kernel; at most 1 up to rounding, below it unless the stride is k.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution and one orthogonalisation of an ``out x in k^2`` matrix.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side k of the kernel.
        stride: step of the window.
        orthogonalise: how the matrix is orthogonalised; ``onelip.layers.bjorck`` as in the paper.
        **options: ``padding``, ``padding_mode``, ``dilation``, ``groups``, ``bias``,
            ``image_size``, ``device`` and ``dtype``, see ``options.Conv2dOptions``.

    Raises:
        ValueError: groups that do not divide the channels.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(onelip.lipschitz_bound(RKOConv2d(4, 8, 3)) < 1 + 1e-6)
        True

    Reference: Li et al., "Preventing gradient attenuation in Lipschitz constrained convolutional
    networks", NeurIPS 2019, section 4.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        orthogonalise: Orthogonalise = cholesky_qr,
        **options: Unpack[Conv2dOptions],
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, **options)
        self.orthogonalise = orthogonalise
        inputs, outputs = self.group_channels
        self.raw_weight = tall(
            outputs, inputs * kernel_size**2, count=self.groups, **placed(options)
        )

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_weight]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        inputs, outputs = self.group_channels
        flat = oriented(matrices[0], outputs, inputs * self.kernel_size**2).flatten(0, 1)
        # at most windows^2 windows share a pixel, so the norm grows by at most their root
        windows = windows_of_a_pixel(self.kernel_size, self.stride, self.dilation)
        return flat.reshape(-1, inputs, self.kernel_size, self.kernel_size) / windows


def windows_of_a_pixel(kernel_size: int, stride: int, dilation: int) -> int:
    """Largest number of windows along one axis that share a pixel."""
    if dilation > 1:
        return kernel_size
    return -(-kernel_size // stride)
