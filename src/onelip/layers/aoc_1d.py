"""Adaptive orthogonal convolution of sequences (Boissin et al., ICML 2025); see ``aoc.py``."""

from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip import norms
from onelip.chains.linear_layers import Sides, convolution, expect, reshaped
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.layers.aoc import inner_channels, strided_kernel
from onelip.layers.bcop import by_group, projector_bases
from onelip.layers.constrained import check_channels, fill
from onelip.layers.fixed_conv import FixedConv2d, check_image, check_whole_strides
from onelip.layers.options import FactoryOptions
from onelip.layers.orthogonal import (
    Orthogonalise,
    OrthogonalLayer,
    cholesky_qr,
    oriented,
    tall,
)
from onelip.lipschitz.torch_modules import sides_of
from onelip.norms.convolutions import check_padding_mode, is_circular


class AOCConv1d(OrthogonalLayer):
    r"""Orthogonal convolution of sequences, of any kernel size and stride up to it.

    Bound: the proved norm of the kernel; 1 up to rounding. Under circular padding on lengths that
    the stride divides, the map is orthogonal (an isometry on the smaller side), from 2 channels per
    group on.
    Shape: ``(batch, in_channels, length)`` to ``(batch, out_channels, length / stride)``.
    Cost: a convolution, and per step ``k (k - 1) / 2`` products of n x n matrices.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: length k of the kernel.
        stride: at most ``kernel_size``.
        padding_mode: ``"circular"``, the default, or ``"zeros"``; the length is kept, or divided
            by the stride.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        orthogonalise: how matrices are orthogonalised.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: a stride beyond the kernel, or groups that do not divide; in ``forward``, a
            length that the stride does not divide, under circular padding.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(AOCConv1d(4, 8, 3, stride=2)) - 1) < 1e-5)
        True

    Reference: Boissin et al., "An adaptive orthogonal convolution scheme for efficient and flexible
    CNN architectures", ICML 2025.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        *,
        padding_mode: str = "circular",
        groups: int = 1,
        bias: bool = True,
        orthogonalise: Orthogonalise = cholesky_qr,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        check_padding_mode(padding_mode)
        if not 1 <= stride <= kernel_size:
            raise ValueError(f"stride must be from 1 to kernel_size={kernel_size}, got {stride}")
        check_channels(in_channels, out_channels, groups)
        self.stride, self.padding_mode, self.groups = stride, padding_mode, groups
        # "same" of an even kernel pads one more pixel on the right, as torch does
        self.padding: str | tuple[int, int] = "same"
        if stride > 1:
            self.padding = (0, (kernel_size - stride + 1) // 2)
        self.kernel_size, self.orthogonalise = kernel_size, orthogonalise
        self._channels = in_channels // groups, out_channels // groups
        self._inner = inner_channels(*self._channels, kernel_size, stride)
        columns = self._inner * stride
        self.raw_matrix = tall(self._channels[1], columns, count=groups, **factory)
        self.raw_bases = projector_bases(groups, kernel_size - stride, self._inner, **factory)
        self.bias = nn.Parameter(torch.zeros(out_channels, **factory)) if bias else None

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_matrix, self.raw_bases]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        matrix = oriented(matrices[0], self._channels[1], self._inner * self.stride)
        bases = by_group(matrices[1], self.groups)
        return strided_kernel(matrix, bases, (1, self.stride), (2,))[:, : self._channels[0]]

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the sequence with the weight in use, as an image of height 1."""
        image = x[:, :, None]
        check_whole_strides(image, (1, self.stride), self.padding_mode)
        weight, padding = self.weight, self.padding
        rows, columns = self._sides(weight)
        if is_circular(self.padding_mode):
            image = F.pad(image, columns + rows, mode="circular")
            padding = (0, 0)
        y = F.conv2d(image, weight, self.bias, (1, self.stride), padding, 1, self.groups)
        return y[:, :, 0]

    def _sides(self, weight: Tensor) -> Sides:
        """Return the pixels before and after, by the padding in use.

        Raises:
            UsageError: the padding was changed to one of rows, of which a sequence has one.
        """
        sides = sides_of(weight, self.padding, (1, 1))
        if any(sides[0]):
            raise UsageError(f"padding={self.padding} of a sequence pads rows: (0, pixels)")
        return sides

    def lipschitz_bound(self) -> Tensor:
        """The proved norm of the kernel in use."""
        return norms.convolution(
            self.weight,
            padding=self.padding,
            padding_mode=self.padding_mode,
            stride=(1, self.stride),
            groups=self.groups,
            whole_strides=True,
        )

    def export(self) -> nn.Sequential:
        """Return a plain convolution of images of height 1, between two views."""
        check_padding_mode(self.padding_mode)
        weight = self.fixed_weight()
        self._sides(weight)
        outputs, inputs = self._channels[1] * self.groups, self._channels[0] * self.groups
        conv = nn.Conv2d(
            inputs,
            outputs,
            (1, weight.shape[-1]),
            stride=(1, self.stride),
            padding=self.padding,
            padding_mode=self.padding_mode,  # type: ignore[arg-type]
            groups=self.groups,
            bias=self.bias is not None,
            device="meta",
        )
        fill(conv, weight, self.bias)
        fixed = FixedConv2d(conv, image_size=None)
        return nn.Sequential(nn.Unflatten(2, (1, -1)), fixed, nn.Flatten(2))

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a convolution of images of one row with the kernel in use."""
        weight = self.weight
        expect(value, "(channels, length)", len(value.shape) == 2)
        rows = reshaped(value, (value.shape[0], 1, value.shape[1]))
        check_image(rows, None, (1, self.stride), self.padding_mode)
        image = convolution(
            rows,
            weight,
            self.bias,
            stride=(1, self.stride),
            sides=self._sides(weight),
            groups=self.groups,
            circular=is_circular(self.padding_mode),
        )
        return reshaped(image, (image.shape[0], image.shape[2]))
