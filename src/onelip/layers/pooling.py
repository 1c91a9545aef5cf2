"""Average, max and norm pooling, divided by their exact Lipschitz constants."""

import abc
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from typing_extensions import override

from onelip.chains.linear_layers import average, expect, scaled
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import Local, Run
from onelip.forward_error import scaled as one_product
from onelip.layers.options import Size, both
from onelip.lipschitz import LipschitzModule
from onelip.norms.convolutions import Pair, pair
from onelip.norms.windows import overlap_of_maxima, overlap_of_sums, root_above


class ScaledAvgPool2d(LipschitzModule):
    """Average over windows, divided by the norm of that map.

    For windows that do not overlap this is the sum over k x k pixels divided by k, which keeps the
    norm of constant images; an average would shrink everything by k. Pixels that no whole window
    covers are dropped: windows of uneven size (adaptive pooling) would not be 1-Lipschitz. (It is
    written as an average times a factor, since both of torch's ONNX exporters drop the divisor of
    ``avg_pool2d(divisor_override=...)``.)

    Bound: 1, attained, also with overlapping windows.
    Shape: ``(batch, c, h, w)`` to ``(batch, c, (h - k) / stride + 1, (w - k) / stride + 1)``.
    Cost: one average pooling.

    Args:
        kernel_size: sides of a window, one number or two.
        stride: step of the window, one number or two; ``kernel_size`` by default.

    Example:
        >>> ScaledAvgPool2d(2)(torch.ones(1, 1, 2, 2))
        tensor([[[[2.]]]])
    """

    same_in_float64 = True

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride = windows(kernel_size, stride)
        self.scale = _scale_of_sums(self.kernel_size, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``scale`` times the mean of each window."""
        return F.avg_pool2d(x, self.kernel_size, self.stride) * self.scale

    def lipschitz_bound(self) -> Tensor:
        """Return 1, by the scale in use."""
        return _one_by(self, _scale_of_sums(self.kernel_size, self.stride))

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a linear map."""
        means = average(value, pair(self.kernel_size), pair(self.stride), (0, 0))
        return scaled(means, torch.tensor(self.scale, dtype=torch.float64))

    def forward_error(self, run: Run) -> Local:
        """Rounding of a sum, a quotient and a product; the scaled means are no longer than x."""
        window = math.prod(pair(self.kernel_size))
        run.arithmetic.check(run.x.reach * window)
        lost = self.scale * run.rounding(1, 0.0)  # underflow of the quotient, times the scale
        return Local(0.0, run.rounding(window + 3, run.x.reach) + lost)


class ScaledL2NormPool2d(LipschitzModule):
    """Norm over windows, divided by the root of the number of windows that share a pixel.

    Where the window is 0 the gradient is taken as 0.

    Bound: 1, attained. Without overlap nothing is divided, and the norm of the image is kept.
    Shape: ``(batch, c, h, w)`` to ``(batch, c, (h - k) / stride + 1, (w - k) / stride + 1)``.
    Cost: one copy of the windows and its norms.

    Args:
        kernel_size: sides of a window, one number or two.
        stride: step of the window, one number or two; ``kernel_size`` by default.

    Example:
        >>> ScaledL2NormPool2d(2)(torch.tensor([[[[1.0, 2.0], [2.0, 4.0]]]]))
        tensor([[[[5.]]]])
    """

    same_in_float64 = True

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride = windows(kernel_size, stride)
        self.scale = _scale_of_maxima(self.kernel_size, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``scale`` times the l2 norm of each window."""
        (rows, columns), (down, across) = pair(self.kernel_size), pair(self.stride)
        height, width = x.shape[-2] - rows + 1, x.shape[-1] - columns + 1
        taps = [  # strided slices: ONNX has them, where nested unfolding loses its shape
            x[..., i : height + i : down, j : width + j : across]
            for i in range(rows)
            for j in range(columns)
        ]
        norms: Tensor = torch.linalg.vector_norm(torch.stack(taps, -1), dim=-1)
        return norms if self.scale == 1 else norms * self.scale

    def lipschitz_bound(self) -> Tensor:
        """Return 1, by the scale in use."""
        return _one_by(self, _scale_of_maxima(self.kernel_size, self.stride))

    def forward_error(self, run: Run) -> Local:
        """Rounding of a norm; squares that underflow change the root by ``sqrt(window * lost)``."""
        window = math.prod(pair(self.kernel_size))
        run.arithmetic.check(2 * run.x.reach * run.x.reach)
        lost = math.sqrt(4 * window * run.arithmetic.lost * run.count)
        return Local(0.0, run.rounding(window + 6, run.x.reach) + lost)


class ScaledMaxPool2d(LipschitzModule):
    """Maximum over windows, divided by the root of the number of windows that share a pixel.

    Bound: 1, attained. Without overlap nothing is divided: ``nn.MaxPool2d`` has the constant 1.
    Shape: ``(batch, c, h, w)`` to ``(batch, c, (h - k) / stride + 1, (w - k) / stride + 1)``.
    Cost: one max pooling.

    Args:
        kernel_size: sides of a window, one number or two.
        stride: step of the window, one number or two; ``kernel_size`` by default.

    Example:
        >>> ScaledMaxPool2d(3, stride=1)(torch.ones(1, 1, 3, 3))
        tensor([[[[0.3333]]]])
    """

    same_in_float64 = True

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__()
        self.kernel_size, self.stride = windows(kernel_size, stride)
        self.scale = _scale_of_maxima(self.kernel_size, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``scale`` times the maximum of each window."""
        pooled = F.max_pool2d(x, self.kernel_size, self.stride)
        return pooled if self.scale == 1 else pooled * self.scale

    def lipschitz_bound(self) -> Tensor:
        """Return 1, by the scale in use."""
        return _one_by(self, _scale_of_maxima(self.kernel_size, self.stride))

    def forward_error(self, run: Run) -> Local:
        """Rounding of one product."""
        return one_product(self, run)


class _AdaptivePool2d(LipschitzModule):
    """A pooling to images of a given size, which on images of one size has fixed windows."""

    same_in_float64 = True

    def __init__(self, output_size: Size = 1) -> None:
        super().__init__()
        self.output_size = _adaptive(output_size)

    @abc.abstractmethod
    def pool(self, shape: Sequence[int]) -> "ScaledAvgPool2d | ScaledL2NormPool2d":
        """Return the pooling with fixed windows that this one is on images of a shape."""

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Compute the same as that pooling."""

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the pooling with fixed windows."""
        expect(value, "(channels, height, width)", len(value.shape) == 3)
        return self.pool(value.shape).to_chain(value)

    def forward_error(self, run: Run) -> Local:
        """Rounding of the pooling with fixed windows."""
        return self.pool(run.x.shape).forward_error(run)

    def extra_repr(self) -> str:
        """Arguments as in the constructor."""
        return f"{self.output_size}"


class ScaledAdaptiveAvgPool2d(_AdaptivePool2d):
    """Average pooling to an image of a given size, divided by the norm of that map.

    To one pixel, the default, it is global pooling: the sum divided by the root of the number of
    pixels, by which the norm of a constant image is kept; an average would shrink it.

    Bound: 1, attained.
    Shape: ``(batch, c, h, w)`` to ``(batch, c, *output_size)``.
    Cost: one average pooling.

    Args:
        output_size: height and width, one number or two; they must divide those of the image, for
            windows of uneven sizes overlap.

    Raises:
        ValueError: in ``forward``, an image whose sides they do not divide.

    Example:
        >>> ScaledAdaptiveAvgPool2d()(torch.ones(1, 1, 4, 4))
        tensor([[[[4.]]]])
    """

    @override
    def pool(self, shape: Sequence[int]) -> ScaledAvgPool2d:
        return ScaledAvgPool2d(_even_windows(shape, self.output_size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled mean of each window."""
        window = _even_windows(x.shape, self.output_size)
        return F.avg_pool2d(x, window) * _root_below(math.prod(window))


class ScaledAdaptiveL2NormPool2d(_AdaptivePool2d):
    """Norm pooling to an image of a given size: of the whole image, by default.

    Where the window is 0 the gradient is taken as 0.

    Bound: 1, attained; windows do not overlap, and the norm of the image is kept.
    Shape: ``(batch, c, h, w)`` to ``(batch, c, *output_size)``.
    Cost: one copy of the windows and its norms.

    Args:
        output_size: height and width, one number or two; they must divide those of the image.

    Raises:
        ValueError: in ``forward``, an image whose sides they do not divide.

    Example:
        >>> ScaledAdaptiveL2NormPool2d()(torch.ones(1, 1, 4, 4))
        tensor([[[[4.]]]])
    """

    @override
    def pool(self, shape: Sequence[int]) -> ScaledL2NormPool2d:
        return ScaledL2NormPool2d(_even_windows(shape, self.output_size))

    def forward(self, x: Tensor) -> Tensor:
        """Return the l2 norm of each window."""
        rows, columns = _even_windows(x.shape, self.output_size)
        windows = x.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))
        norms: Tensor = torch.linalg.vector_norm(windows, dim=(-3, -1))
        return norms


def _adaptive(output_size: Size) -> Pair:
    """Return height and width, if they are positive."""
    size = both(output_size, "output_size")
    if min(size) < 1:
        raise ValueError(f"output_size must be positive, got {output_size}")
    return size


def _root_below(area: int) -> float:
    """Root of a number of pixels, rounded down to 24 bits, as float32 has them.

    In whole numbers, which ``torch.compile`` works out: for windows that do not overlap it is the
    ``scale`` of ``ScaledAvgPool2d``.
    """
    shift = (48 - area.bit_length()) // 2
    return math.isqrt(area << 2 * shift) / float(2**shift)


def _even_windows(shape: Sequence[int], output_size: Pair) -> Pair:
    """Return the sides of windows that cover an image without overlap.

    Raises:
        ValueError: there are none.
    """
    height, width = (int(side) for side in shape[-2:])  # tensors, while ONNX files are traced
    rows, columns = output_size
    if not height or not width or height % rows or width % columns:
        raise ValueError(
            f"an image of {height} x {width} does not divide into {rows} x {columns} equal windows:"
            " another output_size, or ScaledAvgPool2d"
        )
    return height // rows, width // columns


def windows(kernel_size: Size, stride: Size | None) -> tuple[Pair, Pair]:
    """Return the sides and the steps of windows; the steps are the sides if they are not given.

    Raises:
        ValueError: they are not one or two whole numbers, or not positive.
    """
    sides = both(kernel_size, "kernel_size")
    steps = both(stride, "stride") if stride else sides
    if min(sides + steps) < 1:
        raise ValueError(f"windows and strides must be positive, got {kernel_size} and {stride}")
    return sides, steps


def _scale_of_sums(kernel_size: Size, stride: Size) -> float:
    """Largest factor of means of windows that is 1-Lipschitz, rounded down."""
    along = list(zip(pair(kernel_size), pair(stride), strict=True))
    return quotient_below(math.prod(pair(kernel_size)), overlap_of_sums(along))


def _scale_of_maxima(kernel_size: Size, stride: Size) -> float:
    """Largest factor of maxima or norms of windows that is 1-Lipschitz, rounded down."""
    along = list(zip(pair(kernel_size), pair(stride), strict=True))
    return quotient_below(1, overlap_of_maxima(along))


def _one_by(pool: Any, scale: float) -> Tensor:
    """Return 1, if the scale of a pool is no larger than the one that is proved for its windows.

    Raises:
        UnboundedModuleError: the scale is that of other windows.
    """
    if not abs(pool.scale) <= scale:
        raise UnboundedModuleError(
            f"{type(pool).__name__} scales by {pool.scale}, and windows of {pool.kernel_size} with "
            f"stride {pool.stride} take {scale} at most: build a new one for other windows"
        )
    return torch.ones((), dtype=torch.float64)


def quotient_below(number: int, square: int) -> float:
    """Round ``number / sqrt(square)`` down to float32: the same factor in float32 and float64."""
    rounded = torch.tensor(number / root_above(square), dtype=torch.float32)
    # exact rational arithmetic decides: the scale must never exceed 1 over the constant
    while Fraction(float(rounded)) ** 2 * square > number**2:
        rounded = torch.nextafter(rounded, torch.zeros_like(rounded))
    return float(rounded)
