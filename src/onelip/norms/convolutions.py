r"""The spectral norm of convolutions, over any number of axes.

A circular convolution on an N x N grid is block diagonal in the Fourier basis: its norm is the
largest norm of the blocks :math:`D(\omega) = \sum_t K_t e^{-i \omega t}` over the grid
frequencies (Sedghi et al., 2019). Every other case comes back to this one:

* **zero padding** p on n x n: the operator is a compression of the circular one on any grid with
  N >= n + p, since what wraps around meets only zeros. On N = n this is false.
* **stride** s: the kernel is split into its s x s phases, as pixel-unshuffling splits the image.
* **groups**: the norm is the largest over the groups, for they act on disjoint channels.
* **dilation**: taps move apart. **Even kernels**: nothing changes, no symmetry is used.
* **reflections and copies of the border**: the norm of the padding, which is the root of how often
  it repeats a pixel, times the norm without padding.
* **nearly orthogonal kernels**: the Gram kernel proves them for every size (``gram_kernel.py``).
* **no image size**: the supremum over all sizes is that of the symbol over the torus
  (``torus.py``).
* **small maps** are written out as a matrix, which is exact for every one of these options;
  **zero padding** on larger images is exact too where ``banded.py`` can afford it.

A transposed convolution is the adjoint of the convolution with the same kernel, or of a part of it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from onelip.errors import UnboundedModuleError
from onelip.norms import banded, gram_kernel
from onelip.norms.axes import Axis, Size, axes_of, excess
from onelip.norms.proved_once import known
from onelip.norms.rounding import exact, frobenius, gamma, power_of_two, upward
from onelip.norms.spectral import ends_above, largest_norm
from onelip.norms.symbol import GramSymbol
from onelip.norms.torus import largest_on_grid, largest_on_torus

Pair = tuple[int, int]

_WRITTEN_OUT = 1024  # up to this many inputs or outputs a map is written out as a matrix
_ENTRIES = 2**24  # of a matrix that is written out
_GRAM_WORK = 1e12  # multiplications of a Gram kernel: some seconds
_BY_ROWS = 4e9  # operations that a proof row by row may take: about a second
_NEARLY_ORTHOGONAL = 1e-4  # relative excess at which the Gram kernel's bound is taken
_TAPS, _OUT, _IN = "uvw", "xyz", "abc"  # letters of axes in sums over them


def convolution(
    weight: Tensor,
    *,
    image_size: Size = None,
    padding: int | tuple[int, ...] | str = 0,
    padding_mode: str = "zeros",
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    whole_strides: bool = False,
) -> Tensor:
    """Proved upper bound of the spectral norm of a convolution over one to three axes.

    Layers ask for it whose proofs rest on more than the norm: on adjoints, which reflected pixels
    do not have as a convolution. ``conv1d``, ``conv2d`` and ``conv3d`` take every padding mode, and
    torch's order of arguments.

    Bound: never below the exact norm. Within 1e-6, relative, of the exact norm for circular padding
    whose stride divides the image, for maps of at most 1024 inputs or outputs (per group), and for
    zero padding as long as a few rows of pixels are a small matrix: with 3 x 3 kernels on 32 x 32
    up to 9 channels on one side. Kernels that are orthogonal up to rounding are within 1e-4 for
    every size. Beyond, zero padding gets the norm on a slightly larger torus;
    ``benchmarks/norms.py`` measures the gap. Reflections and copies of the border cost a factor of
    at most the root of how often a pixel occurs, where the map is not small. Without
    ``image_size``: at most 0.6 percent above the supremum over all sizes, for few channels 0.04,
    times that factor.
    Shape: ``weight`` is ``(out_channels, in_channels / groups, *taps)``.
    Cost: for c channels on n x n, ``n^2 / 2`` Cholesky factors and residuals of c x c complex
    matrices, or one dense bound of a map that is written out.

    Args:
        weight: the kernel, of any floating dtype.
        image_size: pixels of the input along each axis; None for a bound that holds for every size.
        padding: pixels on each side, ``"same"`` or ``"valid"``.
        padding_mode: ``"zeros"`` or ``"circular"``.
        stride: step of the window.
        dilation: distance of the kernel's taps.
        groups: number of blocks of channels.
        whole_strides: the image's sides are known to be multiples of the stride, which counts where
            ``image_size`` is not given: other images repeat pixels under circular padding.

    Raises:
        UnboundedModuleError: reflect or replicate padding, or an unknown mode.
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
    return norm_along(
        weight,
        groups,
        size=image_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        padding_mode=padding_mode,
        whole_strides=whole_strides,
    )


def norm_along(
    weight: Tensor, groups: int, *, dimensions: int | None = None, **window: Any
) -> Tensor:
    """The bound for every padding mode.

    Args:
        weight: as for ``convolution``.
        groups: number of blocks of channels.
        dimensions: axes that the kernel must have; None for one to three.
        **window: the arguments of ``axes_of``.
    """
    check_kernel(weight, groups, axes=dimensions)
    return along(weight, axes_of(weight.shape[2:], **window), groups)


def along(weight: Tensor, axes: list[Axis], groups: int) -> Tensor:
    """The bound for axes that are known in full."""
    kernels = exact(weight).unflatten(0, (groups, -1))
    return known(kernels, ("convolution", *axes), lambda scaled: _proved(scaled, axes))


def check_kernel(weight: Tensor, groups: int, axes: int | None = None) -> None:
    """Check that a tensor is the real kernel of a convolution of so many groups and axes.

    Raises:
        ValueError: it is not.
    """
    if weight.is_complex():
        raise ValueError("a complex kernel has no half spectrum: bound the matrix with dense()")
    if axes is not None and weight.ndim != axes + 2:
        raise ValueError(f"a kernel of {axes + 2} dimensions is needed, got {tuple(weight.shape)}")
    if weight.ndim not in (3, 4, 5) or groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"shape {tuple(weight.shape)} is no kernel of {groups} groups")


def _proved(kernels: Tensor, axes: list[Axis]) -> Tensor:
    """The bound by the tightest way that is affordable; kernels as in ``fourier``."""
    if _is_small(axes, kernels):
        outputs = 2 + len(axes)
        matrices = _written_out(kernels, axes).flatten(1, outputs - 1).flatten(2)
        return largest_norm(matrices, _meeting_error(kernels, axes))
    for first in range(len(axes)):  # rows, columns or planes, whichever can be afforded
        turned = kernels.movedim(3 + first, 3)
        way = [axes[first], *axes[:first], *axes[first + 1 :]]
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


def pair(value: int | tuple[int, ...]) -> Pair:
    """Torch's way to give one number for both axes."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _is_small(axes: list[Axis], kernels: Tensor) -> bool:
    """Whether the map is known and small."""
    if any(axis.size is None for axis in axes):
        return False
    inputs = kernels.shape[2] * math.prod(a.size or 0 for a in axes)
    outputs = kernels.shape[1] * math.prod(a.outputs for a in axes)
    return min(inputs, outputs) <= _WRITTEN_OUT and inputs * outputs <= _ENTRIES


def _is_narrow(axes: list[Axis], kernels: Tensor) -> bool:
    """Whether a proof row by row is affordable: zero padding, and small blocks."""
    if any(axis.size is None or axis.mode != "zeros" for axis in axes):
        return False
    inputs = kernels.shape[2] * math.prod(axis.size or 0 for axis in axes[1:])
    outputs = kernels.shape[1] * math.prod(axis.outputs for axis in axes[1:])
    size, blocks = banded.block_size(_rows(axes[0]), inputs, outputs)
    return len(kernels) * blocks * size**3 <= _BY_ROWS


def _by_rows(kernel: Tensor, axes: list[Axis]) -> Tensor:
    """The norm of one group, ``(out, in, *taps)``, proved along the first axis."""
    if not kernel.any():
        return torch.zeros((), dtype=torch.float64)
    scale = power_of_two(kernel)
    rest = len(axes) - 1
    taps, out, into = _TAPS[:rest], _OUT[:rest], _IN[:rest]
    spread = [axis.taps_matrix().to(kernel) for axis in axes[1:]]
    letters = ",".join(map("".join, zip(taps, out, into, strict=True)))
    equation = f"oit{taps}{',' * bool(rest)}{letters}->to{out}i{into}"
    maps = torch.einsum(equation, kernel * scale, *spread)
    maps = maps.flatten(1, 1 + rest).flatten(2)
    square = banded.squared_norm(maps, _rows(axes[0]))
    return ends_above(upward(square, 2).sqrt() / scale).cpu()


def _rows(axis: Axis) -> banded.Rows:
    inputs, outputs = axis.size or 0, axis.outputs
    return banded.Rows(inputs, outputs, axis.taps, axis.stride, axis.dilation, axis.before)


def _written_out(kernels: Tensor, axes: list[Axis]) -> Tensor:
    """The matrix of the map, ``(group, out, *y, in, *y')``: exact, if no taps meet."""
    taps, out, into = _TAPS[: len(axes)], _OUT[: len(axes)], _IN[: len(axes)]
    letters = ",".join(map("".join, zip(taps, out, into, strict=True)))
    spread = [axis.taps_matrix().to(kernels) for axis in axes]
    matrix: Tensor = torch.einsum(f"goi{taps},{letters}->go{out}i{into}", kernels, *spread)
    return matrix


def _meeting_error(kernels: Tensor, axes: list[Axis]) -> Tensor:
    """Bound of the Frobenius norm of what sums of taps, which meet in one pixel, were rounded by.

    A sum of n taps is off by at most ``gamma(n - 1)`` times the sum of their sizes, which the
    matrix of the sizes holds; it has at most that much more by the same sums.
    """
    meet = math.prod(int(axis.taps_matrix().sum(0).max()) for axis in axes)
    if meet < 2:
        return torch.zeros((), dtype=torch.float64)
    sizes = _written_out(kernels.abs(), axes).flatten(1, 1 + len(axes)).flatten(2)
    return upward(2 * gamma(meet) * frobenius(sizes).max(), 4)


def fourier(kernels: Tensor, axes: list[Axis]) -> Tensor:
    """Bound from the symbol; ``kernels`` is ``(groups, out, in, *taps)``."""
    phases = phase_kernels(kernels, axes)
    if not phases.any():
        return torch.zeros((), dtype=torch.float64)
    scale = power_of_two(phases)
    phases = phases * scale
    if phases.shape[1] > phases.shape[2]:
        phases = phases.transpose(1, 2)  # which transposes the symbol
    square = _from_gram_kernel(phases)
    # about the squared norm that an orthogonal kernel of these entries has
    length = float(torch.linalg.vector_norm(phases.flatten(1), dim=1).max()) ** 2 / phases.shape[1]
    if square > length * (1 + 2 * _NEARLY_ORTHOGONAL):
        square = torch.minimum(square, _largest_square(phases, axes).cpu())
    return ends_above(upward(square * excess(axes), 4).sqrt() / scale).cpu()


def _from_gram_kernel(phases: Tensor) -> Tensor:
    """The bound of ``gram_kernel.py``, which holds on every grid; infinite if it takes too long."""
    groups, rows, columns, *taps = phases.shape
    work = groups * rows * columns * max(rows, columns) * math.prod(taps)
    if work * math.prod(2 * n - 1 for n in taps) > _GRAM_WORK:
        return torch.tensor(math.inf, dtype=torch.float64)
    return gram_kernel.squared_norm(phases)


def _largest_square(phases: Tensor, axes: list[Axis]) -> Tensor:
    """Largest eigenvalue of the Gram matrices on a grid, or on the torus where no size is known."""
    symbol = GramSymbol(phases)
    if all(axis.grid is not None for axis in axes):
        return largest_on_grid(symbol, tuple(axis.grid or 0 for axis in axes))
    return largest_on_torus(symbol)


def phase_kernels(kernels: Tensor, axes: list[Axis]) -> Tensor:
    """Dilate kernels and split them into stride-1 kernels of the unshuffled image.

    Shape: ``(groups, out, in, *taps)`` to ``(groups, out, in strides, *taps)``.
    """
    count = len(axes)
    spread = []
    for axis in axes:
        length = -(-axis.reach // axis.phases) * axis.phases
        matrix = torch.zeros(axis.taps, length)
        matrix[torch.arange(axis.taps), torch.arange(axis.taps) * axis.dilation] = 1
        spread.append(matrix.to(kernels))
    taps, out = _TAPS[:count], _OUT[:count]
    letters = ",".join(map("".join, zip(taps, out, strict=True)))
    wide = torch.einsum(f"goi{taps},{letters}->goi{out}", kernels, *spread)
    for i, axis in reversed(list(enumerate(axes))):
        wide = wide.unflatten(3 + i, (-1, axis.phases))
    order = [0, 1, 2, *range(4, 4 + 2 * count, 2), *range(3, 3 + 2 * count, 2)]
    split: Tensor = wide.permute(order).flatten(2, 2 + count)
    return split
