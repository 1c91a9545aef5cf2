r"""Singular value clipping and masking (Sedghi, Gupta, Long, ICLR 2019), a projection of kernels.

The kernel is free, and is projected from time to time towards the kernels of norm at most 1. In the
Fourier basis of an N x N torus a convolution is one block per frequency, and the nearest
convolution of norm at most 1 clips the singular values of each block at 1. Its kernel fills the
whole torus; masking keeps the taps of the original one. Both sets are convex, so alternating
projections converge to their intersection, but need not reach it in finitely many steps: the bound
is proved for the result.
"""

import abc
import math
from typing import Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.layers.aol import unshuffled
from onelip.layers.block_convolution import shuffled
from onelip.layers.constrained import ConstrainedConv2d
from onelip.layers.fixed_conv import check_whole_strides
from onelip.layers.options import FactoryOptions, Padding, Size
from onelip.lipschitz import LipschitzModule
from onelip.lipschitz.torch_modules import sides_of
from onelip.norms.convolutions import Pair, pair


class ProjectedLayer(LipschitzModule):
    """A layer with free parameters that are projected onto a constraint between updates."""

    @abc.abstractmethod
    def project(self) -> None:
        """Move the parameters to, or close to, the nearest ones that satisfy the constraint."""


def project(model: nn.Module) -> None:
    """Project every ``ProjectedLayer`` of a model; the paper of BCOP does so every 100 updates.

    Args:
        model: any module; without such layers nothing happens.

    Example:
        >>> import onelip
        >>> layer = SVCMConv2d(4, 8, 3, image_size=8)
        >>> project(nn.Sequential(layer))
        >>> bool(onelip.lipschitz_bound(layer) < 1.01)
        True
    """
    for layer in model.modules():
        if isinstance(layer, ProjectedLayer):
            layer.project()


def clipped(kernels: Tensor, grid: Pair) -> Tensor:
    """Return the nearest circular convolutions of norm at most 1, with taps all over the grid.

    A block X becomes ``X V min(1, l^{-1/2}) V^H`` with ``X^H X = V l V^H``. Small singular values,
    whose eigenvalues are inaccurate, are left alone. So are blocks for which ``I - X^H X`` has a
    Cholesky factor: that test takes a tenth of the time.

    Shape: ``(groups, out, in, height, width)`` to ``(groups, out, in, *grid)``.
    Cost: ``height width / 2`` factorisations, and a Hermitian eigenvalue problem for each block
    that is too long, of the size of the smaller number of channels.
    """
    blocks = torch.fft.rfft2(kernels, s=grid).movedim((-2, -1), (0, 1))
    wide = blocks.shape[-2] < blocks.shape[-1]
    tall = (blocks.mH if wide else blocks).contiguous()
    gram = tall.mH @ tall
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    long = torch.linalg.cholesky_ex(eye - gram).info > 0
    squares, vectors = torch.linalg.eigh(gram[long])
    # subtract the excess of the long singular values instead of rebuilding the block
    excess = 1 - squares.clamp_min(1).rsqrt()
    tall[long] -= (tall[long] @ vectors * excess[..., None, :]) @ vectors.mH
    blocks = tall.mH if wide else tall
    filled: Tensor = torch.fft.irfft2(blocks.movedim((0, 1), (-2, -1)), s=grid)
    return filled


class SVCMConv2d(ProjectedLayer, ConstrainedConv2d):
    r"""Convolution with a free kernel, whose singular values ``project`` clips at 1.

    Bound: the proved norm of the kernel in use; right after ``project`` a little above 1, and
    whatever the kernel has become otherwise. A new layer is not projected.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution; each iteration of ``project`` solves up to ``h w / (2 stride^2)``
    eigenvalue problems of n x n complex matrices, n the smaller of ``in_channels stride^2`` and
    ``out_channels``: for 32 channels on 32 x 32 about 0.1 s on one core.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: sides of the kernel.
        stride: step of the window; must divide the image.
        padding: as ``nn.Conv2d``, see ``options.py``, like all further ones.
        dilation: distance of the taps.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``, under which the torus is larger by the
            padding, so that the zero-padded map is a part of the circular one.
        image_size: height and width of the images for which singular values are clipped.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: groups that do not divide the channels, a stride that does not divide the image
            under circular padding, a kernel larger than the torus; in ``forward``, an image of
            another size.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = SVCMConv2d(4, 8, 3, image_size=8)
        >>> layer.project()
        >>> bool(onelip.lipschitz_bound(layer) < 1.01)
        True

    Reference: Sedghi, Gupta, Long, "The singular values of convolutional layers", ICLR 2019.
    """

    def __init__(  # noqa: PLR0917 torch's order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = None,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "circular",
        *,
        image_size: int | tuple[int, int],
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            image_size=image_size,
            **factory,
        )
        size = pair(image_size)
        check_whole_strides(torch.empty(size), self.stride, self.padding_mode)
        inputs, _ = self.group_channels
        shape = (out_channels, inputs, *self.kernel_size)
        self.raw_weight = nn.Parameter(torch.empty(shape, **factory))
        # zero padding is circular padding on a torus that is larger by the border
        circular = self.padding_mode == "circular"
        sides = sides_of(self.raw_weight, self.padding, self.dilation)
        borders = [0 if circular else max(around) for around in sides]
        self._grid = [
            -(-(n + more) // s) for n, more, s in zip(size, borders, self.stride, strict=True)
        ]
        self._reach = [
            d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)
        ]
        for reach, s, cells in zip(self._reach, self.stride, self._grid, strict=True):
            if -(-reach // s) > cells:
                raise ValueError(
                    f"a kernel that spans {reach} pixels is larger than the image of "
                    f"{size[0]} x {size[1]} that its norm is taken on"
                )
        nn.init.kaiming_uniform_(self.raw_weight, a=math.sqrt(5))

    @override
    def compute_weight(self) -> Tensor:
        return self.raw_weight.view_as(self.raw_weight)  # a tensor to hold, not a parameter

    @override
    @torch.no_grad()
    def project(self, *, iterations: int = 50) -> None:
        """Clip singular values and mask taps in turn.

        Args:
            iterations: number of times.
        """
        dtype = self.raw_weight.dtype
        kernel = self.raw_weight.to(torch.promote_types(dtype, torch.float32))
        for _ in range(iterations):
            blocks = unshuffled(kernel, self.stride, self.dilation).unflatten(0, (self.groups, -1))
            kernel = self._mask(clipped(blocks, (self._grid[0], self._grid[1])).flatten(0, 1))
        self.raw_weight.copy_(kernel)

    def _mask(self, filled: Tensor) -> Tensor:
        """Keep the taps of the original kernel, of one that fills the grid of unshuffled pixels."""
        rows, columns = (-(-reach // s) for reach, s in zip(self._reach, self.stride, strict=True))
        taps = shuffled(filled[..., :rows, :columns], self.stride)
        (height, width), (down, across) = self._reach, self.dilation
        return taps[..., :height:down, :width:across]
