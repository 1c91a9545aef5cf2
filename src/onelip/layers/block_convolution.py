r"""Orthogonal kernels by block convolution (Li et al., NeurIPS 2019; Boissin et al., ICML 2025).

For a projector :math:`P = Q Q^T` the kernel :math:`[P,\ I - P]` of two taps is orthogonal: its
symbol :math:`P + e^{-i\omega}(I - P)` is unitary. BCOP composes an orthogonal matrix H with k - 1
such kernels along each axis, in turn, with projectors of rank n / 2.

Composition is a product of matrices over channels for each pair of taps (block convolution).
Multiplying a kernel X of T taps by :math:`[P,\ I - P]` needs only the T products
:math:`(X_t Q) Q^T`, since the other half is what is left of :math:`X_t`; no projector is ever
formed. A 3 x 3 kernel takes 13 products of n x n matrices, where a tree of log depth over formed
kernels takes 27 and more memory (``benchmarks/block_convolution.py``).

**Strides and dilation.** Along one axis, with h the greatest common divisor of dilation d and
stride s, all taps of all windows read every h-th pixel, and on these pixels the map has the stride
s / h and the dilation d / h, which have no common divisor. There the first :math:`e = \min(k, s /
h)` taps of a window read pixels of different phases, so that no two windows share one: an
orthogonal matrix on them is an orthogonal map. It may come after BCOP's factors on the pixels
(AOC), or before them, on windows (BCOP); dilation moves the taps of either apart. Every output
depends on at most :math:`c_{in} \prod e` numbers that are not a combination of others, so that no
map of :math:`c_{out} > c_{in} \prod e` channels is orthogonal unless all pixels are read: h = 1 and
k >= s along both axes. Otherwise one of the two constructions is.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip.layers.options import FactoryOptions
from onelip.layers.orthogonal import Orthogonalise, OrthogonalLayer, oriented, tall


def block_kernel(
    matrix: Tensor, bases: Tensor, axes: Sequence[int] = (1, 2), *, dimensions: int = 2
) -> Tensor:
    r"""Compose H with ``[Q Q^T, I - Q Q^T]`` for each basis, vertical and horizontal in turn.

    Args:
        matrix: H, ``(groups, out, n)``.
        bases: Q, ``(groups, count, n, rank)`` with orthonormal columns.
        axes: along which the two taps lie, in turn: of images, 1 is vertical, 2 horizontal.
        dimensions: axes of the kernel.

    Returns:
        A kernel ``(groups, out, n, *taps)``; orthogonal under circular padding if H is.
    """
    taps = (1,) * dimensions
    kernel: Tensor = matrix.unflatten(0, (-1, *taps))  # (groups, *taps, out, n)
    for i, basis in enumerate(bases.unbind(1)):
        columns = basis.unflatten(0, (-1, *taps))
        kept = (kernel @ columns) @ columns.mT  # X Q Q^T without forming the projector
        kernel = _shifted_sum(kept, kernel - kept, axis=axes[i % len(axes)])
    return kernel.movedim((-2, -1), (1, 2))


def _shifted_sum(kept: Tensor, moved: Tensor, axis: int) -> Tensor:
    """Add the taps of two kernels, the second shifted by one tap along an axis."""
    edge = torch.zeros_like(kept.narrow(axis, 0, 1))
    return torch.cat([kept, edge], axis) + torch.cat([edge, moved], axis)


def strided_kernel(
    matrix: Tensor, bases: Tensor, strides: tuple[int, ...], axes: Sequence[int] = (1, 2)
) -> Tensor:
    """Kernel of a BCOP convolution followed by a strided matrix.

    Args:
        matrix: ``(groups, out, n strides)``.
        bases: as in ``block_kernel``.
        strides: along each axis.
        axes: as in ``block_kernel``.

    Returns:
        ``(groups out, n, *taps)``.
    """
    outputs, count = matrix.shape[1], len(strides)
    # one H for each tap of the strided matrix, stacked as rows
    rows = matrix.unflatten(2, (-1, *strides)).movedim(2, -1).flatten(1, -2)
    taps = block_kernel(rows, bases, axes, dimensions=count)
    if all(stride == 1 for stride in strides):
        return taps.flatten(0, 1)
    spread = taps.unflatten(1, (outputs, -1))
    lengths = taps.shape[3:]
    sides = [n + s - 1 for n, s in zip(lengths, strides, strict=True)]
    kernel = taps.new_zeros(len(matrix), outputs, taps.shape[2], *sides)
    # a tap of the strided matrix shifts the BCOP kernel by its place: the product of the two maps
    for i, place in enumerate(itertools.product(*map(range, strides))):
        window: Any = [slice(u, u + n) for u, n in zip(place, lengths, strict=True)]
        kernel[(..., *window)] += spread[:, :, i]
    return kernel.flatten(0, 1)


def shuffled(kernel: Tensor, strides: Sequence[int]) -> Tensor:
    """Kernel on pixels that acts as the given one does on pixels that were unshuffled.

    Shape: ``(out, in strides, *taps)`` to ``(out, in, *taps * strides)``.
    """
    count = len(strides)
    phases = kernel.unflatten(1, (-1, *strides))  # an unshuffled channel (c, u, v) is a tap (u, v)
    order = [axis for i in range(count) for axis in (2 + count + i, 2 + i)]
    moved: Tensor = phases.permute(0, 1, *order)
    for i in range(count):
        moved = moved.flatten(2 + i, 3 + i)
    return moved


def projector_bases(
    groups: int, count: int, channels: int, **factory: Unpack[FactoryOptions]
) -> nn.Parameter:
    """Free matrices for the bases of each group, of rank ``channels // 2``."""
    return tall(channels, channels // 2, count=groups * count, **factory)


def by_group(bases: Tensor, groups: int) -> Tensor:
    """Reshape a stack of bases, which may be empty, to ``(groups, count, n, rank)``."""
    grouped: Tensor = bases.unflatten(0, (groups, len(bases) // groups))
    return grouped


def turns(steps: Sequence[int]) -> tuple[int, ...]:
    """Axes of the bases, from 1 on: in turn, as long as there are any along each.

    Example:
        >>> turns((3, 1))
        (1, 2, 1, 1)
    """
    order = sorted((turn, axis + 1) for axis, count in enumerate(steps) for turn in range(count))
    return tuple(axis for _, axis in order)


@dataclass(frozen=True)
class Composition:
    """How the kernel of one group is made of an orthogonal matrix and bases of projectors.

    Attributes:
        inputs: channels that the kernel reads.
        outputs: channels that it writes.
        taps: of the kernel, along each axis.
        window: taps of the matrix along each axis, which no two windows share.
        on_pixels: whether the bases act on pixels, before the matrix, or on windows, after it.
        inner: channels on which they act.
        turns: axes of the bases, in turn.
    """

    inputs: int
    outputs: int
    taps: tuple[int, ...]
    window: tuple[int, ...]
    on_pixels: bool
    inner: int
    turns: tuple[int, ...]

    @classmethod
    def adaptive(
        cls, inputs: int, outputs: int, taps: tuple[int, ...], window: tuple[int, ...]
    ) -> Self:
        """Bases on pixels, but for one channel, of which they would need two."""
        area = math.prod(window)
        inner = inputs if area > 1 else max(inputs, outputs)
        if inputs == 1 and outputs < 2 * area and taps != window:  # with more, one can be left out
            return cls.on_windows(inputs, outputs, taps, window)
        if taps != window:
            inner = max(inner, 2)
        steps = [k - e for k, e in zip(taps, window, strict=True)]
        return cls(inputs, outputs, taps, window, True, inner, turns(steps))

    @classmethod
    def on_windows(
        cls, inputs: int, outputs: int, taps: tuple[int, ...], window: tuple[int, ...]
    ) -> Self:
        """Bases on windows: taps that fill no whole window are zeros."""
        inner = max(inputs * math.prod(window), outputs)
        steps = [k // e - 1 for k, e in zip(taps, window, strict=True)]
        return cls(inputs, outputs, taps, window, False, inner, turns(steps) if inner > 1 else ())

    @property
    def columns(self) -> int:
        """Columns of the orthogonal matrix, whose rows are the outputs."""
        return self.inner * math.prod(self.window) if self.on_pixels else self.inner

    def kernel(self, matrix: Tensor, bases: Tensor) -> Tensor:
        """Compose the kernel of all groups.

        Args:
            matrix: ``(groups, outputs, columns)``.
            bases: ``(groups, turns, inner, rank)``.

        Returns:
            ``(groups outputs, inputs, *taps)``.
        """
        axes = self.turns or (1,)
        if self.on_pixels:
            # dropping input channels keeps an isometry, and the norm at most 1
            return strided_kernel(matrix, bases, self.window, axes)[:, : self.inputs]
        cells = block_kernel(matrix, bases, axes, dimensions=len(self.taps)).flatten(0, 1)
        kernel = shuffled(cells[:, : self.inputs * math.prod(self.window)], self.window)
        missing = [k - n for k, n in zip(self.taps, kernel.shape[2:], strict=True)]
        around = [side for n in reversed(missing) for side in (n // 2, n - n // 2)]
        return F.pad(kernel, around) if any(missing) else kernel


def windows_side_by_side(
    kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[int, ...]:
    """Number of taps along each axis that read pixels which no other window reads with them."""
    each = zip(kernel_size, stride, dilation, strict=True)
    return tuple(min(k, s // math.gcd(s, d)) for k, s, d in each)


def reads_all(stride: Sequence[int], window: Sequence[int]) -> bool:
    """Whether every pixel is read, with windows as ``windows_side_by_side`` returns them."""
    return tuple(window) == tuple(stride)


class ComposedKernel(OrthogonalLayer):
    """A layer whose kernel is a ``Composition``, of its own groups."""

    groups: int
    composition: Composition

    def compose(
        self,
        composition: Composition,
        orthogonalise: Orthogonalise,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Make the free matrices."""
        self.composition, self.orthogonalise = composition, orthogonalise
        groups, count = self.groups, len(composition.turns)
        self.raw_matrix = tall(composition.outputs, composition.columns, count=groups, **factory)
        self.raw_bases = projector_bases(groups, count, composition.inner, **factory)

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_matrix, self.raw_bases]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        plan = self.composition
        matrix = oriented(matrices[0], plan.outputs, plan.columns)
        return plan.kernel(matrix, by_group(matrices[1], self.groups))
