r"""Convolutions that are a matrix per frequency (Trockman and Kolter, ICLR 2021).

A circular convolution maps :math:`\hat x(\omega)` to :math:`Q(\omega)\, \hat x(\omega)`, one block
per frequency. Families differ in how they compute the blocks from the symbol of a small free
kernel; this module holds their common part.

**Norm.** The unnormalised transform F of N pixels is :math:`\sqrt N` times a unitary matrix, and
the inverse transform divides by N, so the factors cancel: :math:`F^{-1} Q F` is unitarily
equivalent to the block diagonal matrix of all blocks, and its norm is that of the largest block.

**Half spectrum.** Images are real, hence :math:`\hat x(-\omega) = \overline{\hat x(\omega)}`, and
only the columns :math:`0 \le k_x \le n / 2` are stored. A column :math:`0 < k_x < n / 2` stands for
its mirror image too, with blocks :math:`Q(-\omega) = \overline{Q(\omega)}` of equal norms. The
columns 0 and n / 2 (n even) hold both :math:`\omega` and :math:`-\omega`. Of those the inverse
transform uses the Hermitian part, which means that the block in effect is
:math:`\frac{1}{2} (Q(\omega) + \overline{Q(-\omega)})`: the average of two blocks is no longer than
the longer one. Whatever numbers are stored, the largest norm among them is a bound; it is attained
if the columns 0 and n / 2 are Hermitian, as they are for the symbol of a real kernel.
"""

import abc
import copy
import math
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip import norms
from onelip.layers.channels import per_channel
from onelip.layers.constrained import ConstrainedLayer, full_precision
from onelip.layers.fixed_conv import check_image_size
from onelip.layers.options import FactoryOptions, Size, square
from onelip.lipschitz import LipschitzModule
from onelip.norms.convolutions import Pair, pair

_CHUNK = 2**24  # complex numbers whose norms are proved at a time


def at_least_single(tensor: Tensor) -> Tensor:
    """Numbers in at least float32."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def symbol(kernel: Tensor, image_size: Pair) -> Tensor:
    r"""The blocks :math:`\sum_t K_t e^{i \omega (t - c)}` of a kernel on the half spectrum.

    They are those of ``nn.Conv2d(padding="same", padding_mode="circular")``: the tap
    ``c = (k - 1) // 2`` does not shift the image. A kernel larger than the image wraps around it.

    Shape: ``(out, in, k, k)`` to ``(height, width // 2 + 1, out, in)``, complex.
    Cost: ``2 k^2`` multiplications for each complex number that comes out.

    Example:
        >>> centre = torch.zeros(1, 1, 3, 3)
        >>> centre[:, :, 1, 1] = 1
        >>> symbol(centre, (2, 2)).real.flatten()
        tensor([1., 1., 1., 1.])
    """
    (height, width), size = image_size, kernel.shape[-1]
    some: dict[str, Any] = {"dtype": kernel.dtype, "device": kernel.device}
    taps = torch.arange(size, **some) - (size - 1) // 2
    rows = torch.outer(torch.fft.fftfreq(height, **some), taps)
    columns = torch.outer(torch.fft.rfftfreq(width, **some), taps)
    # phases omega (t - c) in turns, all frequencies at once; a product then sums over the taps
    turns = rows[:, None, :, None] + columns[None, :, None, :]
    angles = 2 * math.pi * turns.flatten(2).flatten(0, 1)
    weights = kernel.flatten(2).permute(2, 0, 1).flatten(1)
    blocks = torch.complex(angles.cos() @ weights, angles.sin() @ weights)
    return blocks.view(height, -1, *kernel.shape[:2])


def convolve(
    x: Tensor, spectrum: Tensor, bias: Tensor | None, image_size: Pair, stride: int
) -> Tensor:
    """Unshuffle the pixels of each stride into channels, then multiply by frequency.

    Args:
        x: ``(batch, in_channels, height, width)``.
        spectrum: ``(h, w // 2 + 1, out_channels, in_channels * stride^2)``, complex, with
            ``h, w = height / stride, width / stride``.
        bias: ``(out_channels,)``.
        image_size: height and width.
        stride: side of the squares of pixels.

    Raises:
        ValueError: an image of another size.
    """
    check_image_size(x, image_size)
    if not x.numel():  # which Fourier transforms refuse
        return x.new_zeros(0, spectrum.shape[2], *grid(image_size, stride))
    with full_precision(x):
        pixels = at_least_single(F.pixel_unshuffle(x, stride) if stride > 1 else x)
        by_frequency = torch.fft.rfft2(pixels).permute(2, 3, 1, 0)
        product = (spectrum @ by_frequency).permute(3, 2, 0, 1)
        y = torch.fft.irfft2(product, s=pixels.shape[-2:])
        if bias is not None:
            y = y + per_channel(bias, y.shape[1])
    result: Tensor = y.to(x.dtype)
    return result


def spectrum_bound(spectrum: Tensor) -> Tensor:
    """Proved norm of the largest block, which bounds the map (see the module's docstring)."""
    blocks = spectrum.flatten(0, 1)
    parts = blocks.split(max(1, _CHUNK // blocks[0].numel()))
    return torch.stack([norms.dense(part) for part in parts]).max()


class FixedFourierConv2d(LipschitzModule):
    """A circular convolution with given blocks per frequency; layers of this room export to it.

    Bound: the proved norm of the largest block.
    Shape: ``(batch, in_channels, height, width)`` to
    ``(batch, out_channels, height / stride, width / stride)``.
    Cost: two Fourier transforms and one product per frequency.

    Args:
        spectrum: ``(h, w // 2 + 1, out_channels, in_channels * stride^2)``, complex, with
            ``h, w = height / stride, width / stride``.
        bias: ``(out_channels,)`` or None.
        image_size: height and width of the input.
        stride: side of the squares of pixels that become channels first.

    Raises:
        ValueError: a spectrum that does not fit the image; in ``forward``, an image of another
            size.

    Example:
        >>> import onelip
        >>> layer = FixedFourierConv2d(torch.ones(4, 3, 1, 1).cfloat(), None, image_size=4)
        >>> onelip.lipschitz_bound(layer)
        tensor(1.0000, dtype=torch.float64)
    """

    spectrum: Tensor
    bias: Tensor | None

    def __init__(
        self,
        spectrum: Tensor,
        bias: Tensor | None,
        *,
        image_size: int | tuple[int, int],
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.image_size, self.stride = pair(image_size), stride
        height, width = grid(self.image_size, stride)
        if spectrum.ndim != 4 or spectrum.shape[:2] != (height, width // 2 + 1):
            raise ValueError(
                f"a {height} x {width} grid has a spectrum of {height} x {width // 2 + 1} blocks, "
                f"got shape {tuple(spectrum.shape)}"
            )
        if not spectrum.is_complex():
            raise ValueError(
                f"the spectrum must be complex, got {spectrum.dtype}: spectrum.cfloat()"
            )
        self.block_shape = spectrum.shape[2:]
        # real, so that .double() reaches it; three axes, so that channels_last does not
        numbers = torch.view_as_real(spectrum.detach().resolve_conj())
        self.register_buffer("spectrum", numbers.flatten(0, 1).flatten(1, 2).clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """Complex blocks, one per frequency of the half spectrum."""
        height, _ = grid(self.image_size, self.stride)
        numbers = at_least_single(self.spectrum).view(height, -1, *self.block_shape, 2)
        return torch.view_as_complex(numbers)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the Fourier transform of x by the blocks, and add the bias."""
        return convolve(x, self.weight, self.bias, self.image_size, self.stride)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        return spectrum_bound(self.weight)

    def extra_repr(self) -> str:
        """Channels, image size, stride and bias."""
        outputs, inputs = self.block_shape
        return (
            f"{inputs // self.stride**2}, {outputs}, image_size={self.image_size}, "
            f"stride={self.stride}, bias={self.bias is not None}"
        )


class FourierConv2d(ConstrainedLayer):
    """A circular convolution whose blocks are a function of the symbol of a free kernel.

    ``weight`` is the half spectrum, ``(h, w // 2 + 1, out_channels, in_channels * stride^2)``.
    A family adds ``raw_weight``, the free kernel, and writes ``blocks``. A stride is invertible
    downsampling followed by a convolution of ``kernel_size / stride``.
    """

    raw_weight: nn.Parameter

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        *,
        image_size: int | tuple[int, int],
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        kernel_size, stride = square(kernel_size, "kernel_size"), square(stride, "stride")
        sizes = (in_channels, out_channels, kernel_size, stride)
        if min(sizes) < 1:
            raise ValueError(f"channels, sizes and stride must be positive, got {sizes}")
        if kernel_size % stride:
            raise ValueError(
                f"stride={stride} must divide kernel_size={kernel_size}: the kernel acts on squares"
                " of stride x stride pixels; AOCConv2d takes any kernel_size >= stride"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = kernel_size, stride
        self.image_size = pair(image_size)
        self.grid = grid(self.image_size, stride)
        self.bias = nn.Parameter(torch.zeros(out_channels, **factory)) if bias else None

    @property
    def taps(self) -> int:
        """Side of the free kernel."""
        return self.kernel_size // self.stride

    @property
    def block_shape(self) -> Pair:
        """Rows and columns of a block."""
        return self.out_channels, self.in_channels * self.stride**2

    @abc.abstractmethod
    def blocks(self, symbols: Tensor) -> Tensor:
        """Compute the blocks from the symbol of ``raw_weight``; both ``(h, w // 2 + 1, ...)``."""

    @override
    def compute_weight(self) -> Tensor:
        return self.blocks(symbol(at_least_single(self.raw_weight), self.grid))

    @override
    @torch.no_grad()
    def fixed_weight(self) -> Tensor:
        twin = copy.deepcopy(self).eval().double()
        return twin.compute_weight().to(torch.promote_types(self.raw_weight.dtype, torch.cfloat))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the Fourier transform of x by the blocks, and add the bias."""
        return convolve(x, self.weight, self.bias, self.image_size, self.stride)

    def lipschitz_bound(self) -> Tensor:
        """The proved norm of the largest block in use."""
        return spectrum_bound(self.weight)

    def export(self) -> FixedFourierConv2d:
        """Blocks computed in float64 and rounded once."""
        return FixedFourierConv2d(
            self.fixed_weight(), self.bias, image_size=self.image_size, stride=self.stride
        )

    def extra_repr(self) -> str:
        """Arguments, printed as torch prints those of convolutions."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"image_size={self.image_size}, stride={self.stride}, bias={self.bias is not None}"
        )


def grid(image_size: Pair, stride: int) -> Pair:
    """Return height and width of the image, in strides.

    Raises:
        ValueError: the stride does not divide them, or there is no pixel.
    """
    height, width = image_size
    if min(height, width, stride) < 1 or height % stride or width % stride:
        raise ValueError(
            f"stride={stride} must divide image_size={image_size}: pad or crop the image first"
        )
    return height // stride, width // stride
