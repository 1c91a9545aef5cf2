r"""The spectral norm of two-dimensional convolutions.

A circular convolution on an N x N grid is block diagonal in the Fourier basis: its norm is the
largest norm of the blocks :math:`D(\omega) = \sum_t K_t e^{-i \omega t}` over the grid
frequencies (Sedghi et al., 2019). Every other case comes back to this one:

* **zero padding** p on n x n: the operator is a compression of the circular one on any grid with
  N >= n + p, since what wraps around meets only zeros. On N = n this is false.
* **stride** s: the kernel is split into its s x s phases, as pixel-unshuffling splits the image.
* **groups**: the norm is the largest over the groups, for they act on disjoint channels.
* **dilation**: taps move apart. **Even kernels**: nothing changes, no symmetry is used.
* **nearly orthogonal kernels**: the Gram kernel proves them for every size (``gram_kernel.py``).
* **no image size**: the supremum over all sizes is that of the symbol over the torus. Between the
  points of an N-grid a trigonometric polynomial of degree d exceeds its largest value on the grid
  by a factor of at most ``1 / cos(pi d / N)`` (M. Riesz); ``|D v|^2`` has ``d = taps - 1``.
* **small maps** are written out as a matrix, which is exact for every one of these options;
  **zero padding** on larger images is exact too where ``banded.py`` can afford it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.errors import UnboundedModuleError
from onelip.norms import banded, gram_kernel
from onelip.norms.proved_once import known
from onelip.norms.rounding import exact, frobenius, gamma, power_of_two, upward
from onelip.norms.spectral import ends_above, largest_norm

Pair = tuple[int, int]

_WRITTEN_OUT = 1024  # up to this many inputs or outputs a map is written out as a matrix
_GRAM_WORK = 1e12  # multiplications of a Gram kernel: some seconds
_BY_ROWS = 4e9  # operations that a proof row by row may take: about a second
_OVERSAMPLING = 32  # grid points per tap where no image size is given
_NEARLY_ORTHOGONAL = 1e-4  # relative excess at which the Gram kernel's bound is taken
_CHUNK = 2**24  # complex numbers held at a time
_TWIDDLE_ERROR = 2.0**-48  # of a computed cos or sin of 2 pi j / N, 0 <= j < N; see _twiddles


@dataclass(frozen=True)
class _Axis:
    """One spatial axis of a convolution."""

    size: int | None
    taps: int
    before: int
    after: int
    stride: int
    dilation: int
    circular: bool
    whole_strides: bool

    @property
    def reach(self) -> int:
        return (self.taps - 1) * self.dilation + 1

    @property
    def outputs(self) -> int:
        assert self.size is not None
        return (self.size + self.before + self.after - self.reach) // self.stride + 1

    @property
    def phases(self) -> int:
        """Stride with which the symbol is taken: 1 where circular wrapping may break the phases.

        The map then keeps some rows of the one of stride 1.
        """
        whole = self.whole_strides if self.size is None else self.size % self.stride == 0
        return self.stride if whole or not self.circular else 1

    @property
    def degree(self) -> int:
        """Degree of the symbol, as a trigonometric polynomial."""
        return -(-self.reach // self.phases) - 1

    @property
    def grid(self) -> int:
        """Length of the circular grid that contains this axis, in strides."""
        if self.size is None:
            return _OVERSAMPLING * max(1, self.degree)
        wanted = self.size if self.circular else self.size + max(self.before, self.after)
        return -(-wanted // self.phases)

    @property
    def repeats(self) -> int:
        """Factor by which rows that occur twice may raise the squared norm."""
        repeats = 1
        if self.circular:  # wide padding repeats rows, most often on the smallest image it fits
            size = self.size or max(self.before, self.after, 1)
            repeats = -(-(size + self.before + self.after - self.reach + 1) // size)
        return max(1, repeats)

    @property
    def excess(self) -> float:
        """Factor by which the squared norm may exceed its largest value on the grid."""
        between = 1.0
        if self.size is None:
            between = 1 / math.cos(math.pi * self.degree / self.grid) * (1 + 1e-15)
        return self.repeats * between


def convolution(
    weight: Tensor,
    *,
    image_size: int | Pair | None = None,
    padding: int | Pair | str = 0,
    padding_mode: str = "zeros",
    stride: int | Pair = 1,
    dilation: int | Pair = 1,
    groups: int = 1,
    whole_strides: bool = False,
) -> Tensor:
    """Proved upper bound of the spectral norm of ``torch.nn.functional.conv2d`` as a linear map.

    Bound: never below the exact norm. Within 1e-6, relative, of the exact norm for circular padding
    whose stride divides the image, for maps of at most 1024 inputs or outputs (per group), and for
    zero padding as long as a few rows of pixels are a small matrix: with 3 x 3 kernels on 32 x 32
    up to 9 channels on one side. Kernels that are orthogonal up to rounding are within 1e-4 for
    every size. Beyond, zero padding gets the norm on a slightly larger torus;
    ``benchmarks/norms.py`` measures the gap. Without ``image_size``: at most 1 % above the supremum
    over all sizes.
    Shape: ``weight`` is ``(out_channels, in_channels / groups, height, width)``.
    Cost: for c channels on n x n, ``n^2 / 2`` dense bounds of c x c complex matrices, or one of a
    map that is written out.

    Args:
        weight: the kernel, of any floating dtype.
        image_size: height and width of the input; None for a bound that holds for every size.
        padding: zeros (or wrapped pixels) on each side, ``"same"`` or ``"valid"``.
        padding_mode: ``"zeros"`` or ``"circular"``.
        stride: step of the window.
        dilation: distance of the kernel's taps.
        groups: number of blocks of channels.
        whole_strides: the image's sides are known to be multiples of the stride, which counts where
            ``image_size`` is not given: other images repeat pixels under circular padding.

    Raises:
        UnboundedModuleError: reflect or replicate padding, which repeat pixels and stretch norms.
        NonFiniteError: a weight is infinite or NaN.
        ValueError: a kernel that does not fit in the padded image, groups that do not divide, a
            complex kernel.

    Example:
        >>> import torch, onelip
        >>> box = torch.full((1, 1, 3, 3), 1 / 9)
        >>> onelip.norms.convolution(box, image_size=8, padding=1, padding_mode="circular")
        tensor(1.0000, dtype=torch.float64)
    """
    check_padding_mode(padding_mode)
    if weight.is_complex():
        raise ValueError("a complex kernel has no half spectrum: bound the matrix with dense()")
    if weight.ndim != 4 or groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"shape {tuple(weight.shape)} is no kernel of {groups} groups")
    axes = [
        _axis(
            weight.shape[2 + i],
            None if image_size is None else pair(image_size)[i],
            padding if isinstance(padding, str) else pair(padding)[i],
            circular=padding_mode == "circular",
            stride=pair(stride)[i],
            dilation=pair(dilation)[i],
            whole_strides=whole_strides,
        )
        for i in (0, 1)
    ]
    kernels = exact(weight).unflatten(0, (groups, -1))
    return known(kernels, ("convolution", *axes), lambda scaled: _proved(scaled, axes))


def _proved(kernels: Tensor, axes: list[_Axis]) -> Tensor:
    """The bound by the tightest way that is affordable; kernels as in ``fourier``."""
    if _is_small(axes, kernels):
        matrices = _written_out(kernels, axes).flatten(1, 3).flatten(2, 4)
        return largest_norm(matrices, _meeting_error(kernels, axes))
    for turned, way in ((kernels, axes), (kernels.mT, axes[::-1])):  # rows, or columns
        if _is_narrow(way, turned):
            return torch.stack([_by_rows(kernel, way) for kernel in turned]).max()
    return fourier(kernels, axes)


def check_padding_mode(padding_mode: str) -> None:
    """Refuse what repeats pixels.

    Raises:
        UnboundedModuleError: it is neither ``"zeros"`` nor ``"circular"``.
    """
    if padding_mode not in ("zeros", "circular"):
        raise UnboundedModuleError(
            f"padding_mode={padding_mode!r} repeats pixels and stretches norms; "
            "use 'zeros' or 'circular'"
        )


def is_circular(padding_mode: str) -> bool:
    """Return whether pixels are wrapped; the alternative is zeros.

    Raises:
        UnboundedModuleError: neither, as of a layer whose mode was set after construction.
    """
    check_padding_mode(padding_mode)
    return padding_mode == "circular"


def _axis(
    taps: int,
    size: int | None,
    padding: int | str,
    *,
    circular: bool,
    stride: int,
    dilation: int,
    whole_strides: bool,
) -> _Axis:
    if isinstance(padding, str) and padding not in ("same", "valid"):
        raise ValueError(f"padding must be a number of pixels, 'same' or 'valid', got {padding!r}")
    before = after = 0 if isinstance(padding, str) else padding
    if padding == "same":
        before = (taps - 1) * dilation // 2
        after = (taps - 1) * dilation - before
    axis = _Axis(size, taps, before, after, stride, dilation, circular, whole_strides)
    if size is not None and axis.outputs < 1:
        raise ValueError(f"a kernel that spans {axis.reach} pixels does not fit into {size}")
    return axis


def pair(value: int | tuple[int, ...]) -> Pair:
    """Torch's way to give one number for both axes."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _is_small(axes: list[_Axis], kernels: Tensor) -> bool:
    """Whether the map is known and small."""
    if any(axis.size is None for axis in axes):
        return False
    inputs = kernels.shape[2] * math.prod(a.size or 0 for a in axes)
    outputs = kernels.shape[1] * math.prod(a.outputs for a in axes)
    return min(inputs, outputs) <= _WRITTEN_OUT and inputs * outputs <= _CHUNK


def _is_narrow(axes: list[_Axis], kernels: Tensor) -> bool:
    """Whether a proof row by row is affordable: zero padding, and small blocks."""
    if any(axis.size is None or axis.circular for axis in axes):
        return False
    widths = kernels.shape[2] * (axes[1].size or 0), kernels.shape[1] * axes[1].outputs
    size, blocks = banded.block_size(_rows(axes[0]), *widths)
    return len(kernels) * blocks * size**3 <= _BY_ROWS


def _by_rows(kernel: Tensor, axes: list[_Axis]) -> Tensor:
    """The norm of one group, ``(out, in, height, width)``, proved row by row of pixels."""
    if not kernel.any():
        return torch.zeros((), dtype=torch.float64)
    scale = power_of_two(kernel)
    columns = _taps_matrix(axes[1]).to(kernel)
    maps = torch.einsum("oiuv,vxb->uoxib", kernel * scale, columns).flatten(3, 4).flatten(1, 2)
    square = banded.squared_norm(maps, _rows(axes[0]))
    return ends_above(upward(square, 2).sqrt() / scale).cpu()


def _rows(axis: _Axis) -> banded.Rows:
    inputs, outputs = axis.size or 0, axis.outputs
    return banded.Rows(inputs, outputs, axis.taps, axis.stride, axis.dilation, axis.before)


def _written_out(kernels: Tensor, axes: list[_Axis]) -> Tensor:
    """The matrix of the map, ``(group, out, y, x, in, y', x')``: exact, if no taps meet."""
    rows, columns = (_taps_matrix(axis).to(kernels) for axis in axes)
    matrix: Tensor = torch.einsum("goiuv,uya,vxb->goyxiab", kernels, rows, columns)
    return matrix


def _meeting_error(kernels: Tensor, axes: list[_Axis]) -> Tensor:
    """Bound of the Frobenius norm of what sums of taps, which wrap onto one pixel, were rounded by.

    A sum of n taps is off by at most ``gamma(n - 1)`` times the sum of their sizes, which the
    matrix of the sizes holds; it has at most that much more by the same sums.
    """
    meet = math.prod(int(_taps_matrix(axis).sum(0).max()) for axis in axes)
    if meet < 2:
        return torch.zeros((), dtype=torch.float64)
    sizes = frobenius(_written_out(kernels.abs(), axes).flatten(1, 3).flatten(2, 4)).max()
    return upward(2 * gamma(meet) * sizes, 4)


def _taps_matrix(axis: _Axis) -> Tensor:
    """0-1 matrix ``(tap, output, input)``: which input a tap reads for an output."""
    size = axis.size or 0
    output, tap = torch.arange(axis.outputs), torch.arange(axis.taps)
    read = output * axis.stride + (tap * axis.dilation)[:, None] - axis.before
    if axis.circular:
        read = read % size
    return (read[..., None] == torch.arange(size)).double()


def fourier(kernels: Tensor, axes: list[_Axis]) -> Tensor:
    """Bound from the blocks of the symbol; ``kernels`` is ``(group, out, in, height, width)``."""
    phases = _phases(kernels, axes)
    near = _from_gram_kernel(phases, axes)
    if near is not None and near <= _length(phases) * (1 + _NEARLY_ORTHOGONAL):
        return near
    height, width = axes[0].grid, axes[1].grid
    reach = frobenius(phases.abs().sum((-2, -1))).max()
    error = upward(reach * 2 * (_TWIDDLE_ERROR + gamma(phases.shape[-1] * phases.shape[-2] + 8)), 4)
    bounds = [largest_norm(block, error) for block in _symbol(phases, height, width)]
    excess = torch.tensor(axes[0].excess * axes[1].excess, dtype=torch.float64)
    found = upward(torch.stack(bounds).max() * upward(excess, 4).sqrt(), 4)
    return found if near is None else torch.minimum(near, found)


def _from_gram_kernel(phases: Tensor, axes: list[_Axis]) -> Tensor | None:
    """The bound of ``gram_kernel.py``, which holds on every grid; None if it takes too long."""
    groups, rows, columns, height, width = phases.shape
    work = groups * rows * columns * max(rows, columns) * height * width
    if work * (2 * height - 1) * (2 * width - 1) > _GRAM_WORK or not phases.any():
        return None
    scale = power_of_two(phases)
    square = gram_kernel.squared_norm(phases * scale) * (axes[0].repeats * axes[1].repeats)
    return ends_above(upward(square, 4).sqrt() / scale)


def _length(phases: Tensor) -> float:
    """About the norm that an orthogonal kernel of these entries has."""
    least = min(phases.shape[1:3])
    return float(torch.linalg.vector_norm(phases.flatten(1), dim=1).max()) / math.sqrt(least)


def _phases(kernels: Tensor, axes: list[_Axis]) -> Tensor:
    """Dilate the kernel and split it into stride-1 kernels of the unshuffled image."""
    spread = []
    for axis in axes:
        length = -(-axis.reach // axis.phases) * axis.phases
        matrix = torch.zeros(axis.taps, length)
        matrix[torch.arange(axis.taps), torch.arange(axis.taps) * axis.dilation] = 1
        spread.append(matrix.to(kernels))
    wide = torch.einsum("goiuv,uy,vx->goiyx", kernels, *spread)
    split: Tensor = wide.unflatten(4, (-1, axes[1].phases)).unflatten(3, (-1, axes[0].phases))
    return split.permute(0, 1, 2, 4, 6, 3, 5).flatten(2, 4)


def _symbol(kernels: Tensor, height: int, width: int) -> Iterator[Tensor]:
    """Blocks of half of the grid's frequencies (the rest are conjugates), chunk by chunk."""
    taps = kernels.flatten(-2)
    rows = torch.arange(height, device=kernels.device).repeat_interleave(width // 2 + 1)
    columns = torch.arange(width // 2 + 1, device=kernels.device).repeat(height)
    chunk = max(1, _CHUNK // max(1, kernels[:, :, :, 0, 0].numel()))
    for y, x in zip(rows.split(chunk), columns.split(chunk), strict=True):
        twiddles = _twiddles(y, x, kernels.shape[-2:], (height, width))
        blocks = torch.complex(taps @ twiddles.real, taps @ twiddles.imag)
        yield blocks.permute(0, 3, 1, 2).flatten(0, 1)


def _twiddles(y: Tensor, x: Tensor, taps: torch.Size, grid: Pair) -> Tensor:
    """``exp(-2 pi i (u y / height + v x / width))``, indexed by tap and frequency.

    The angles are reduced exactly, in integers. A quotient below 1 times 2 pi is off by less than
    4 u 2 pi < 2^-48.3, cos and sin by one more unit in the last place, and the product of the two
    factors by the sum of theirs: ``_TWIDDLE_ERROR`` is multiplied by 2 where it is used. The
    test-suite compares every grid up to 256 with ball arithmetic.
    """
    factors = []
    for frequency, count, size in ((y, taps[0], grid[0]), (x, taps[1], grid[1])):
        index = torch.arange(count, device=y.device)[:, None] * frequency % size
        angle = index.double() / size * (2 * math.pi)
        factors.append(torch.polar(torch.ones_like(angle), -angle))
    return (factors[0][:, None] * factors[1]).flatten(0, 1)
