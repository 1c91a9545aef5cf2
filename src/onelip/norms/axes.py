"""One spatial axis of a convolution: sizes, which pixel a tap reads, what is beyond the border."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.errors import UnboundedModuleError

MODES = ("zeros", "circular", "reflect", "replicate")
"""Torch's names of what is beyond the border."""

Size = int | None | tuple[int | None, ...]
"""Pixels along each axis; None where every size is meant."""


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution.

    Attributes:
        size: pixels of the image; None for every size.
        taps: of the kernel.
        before: padded pixels in front of the image.
        after: padded pixels behind it.
        stride: step of the window.
        dilation: distance of the taps.
        mode: what the padded pixels hold.
        whole_strides: the size is known to be a multiple of the stride, where it is not given.
        limit: only so many of the windows are there, as in some transposed convolutions.
    """

    size: int | None
    taps: int
    before: int = 0
    after: int = 0
    stride: int = 1
    dilation: int = 1
    mode: str = "zeros"
    whole_strides: bool = False
    limit: int | None = None

    @property
    def circular(self) -> bool:
        """Whether the image wraps around."""
        return self.mode == "circular"

    @property
    def reach(self) -> int:
        """Pixels that a window spans."""
        return (self.taps - 1) * self.dilation + 1

    @property
    def outputs(self) -> int:
        """Windows that fit into the padded image."""
        assert self.size is not None
        count = (self.size + self.before + self.after - self.reach) // self.stride + 1
        return count if self.limit is None else min(count, self.limit)

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
    def grid(self) -> int | None:
        """Length of a circular grid that contains this axis, in strides; None for every size."""
        if self.size is None:
            return None
        beyond = {"zeros": max(self.before, self.after), "circular": 0}
        wanted = self.size + beyond.get(self.mode, self.before + self.after)
        return -(-wanted // self.phases)

    @property
    def repeats(self) -> int:
        """Factor by which pixels or rows that occur twice may raise the squared norm."""
        if self.mode == "zeros":
            return 1
        if self.circular:  # wide padding repeats rows, most often on the smallest image it fits
            size = self.size or max(self.before, self.after, 1)
            return max(1, -(-(size + self.before + self.after - self.reach + 1) // size))
        if self.size is not None:
            return int(torch.bincount(self._sources()).max())
        if self.mode == "reflect":  # a pixel and its mirror image on either side
            return 1 + min(1, self.before) + min(1, self.after)
        return 1 + self.before + self.after  # on an image of one pixel

    def taps_matrix(self) -> Tensor:
        """0-1 matrix ``(tap, output, input)``: which input a tap reads for an output."""
        assert self.size is not None
        output, tap = torch.arange(self.outputs), torch.arange(self.taps)
        read = output * self.stride + (tap * self.dilation)[:, None]
        source = self._sources()[read]
        return (source[..., None] == torch.arange(self.size)).double()

    def _sources(self) -> Tensor:
        """The pixel that each place of the padded image holds; -1 for a zero."""
        assert self.size is not None
        place = torch.arange(-self.before, self.size + self.after)
        if self.mode == "circular":
            return place % self.size
        if self.mode == "replicate":
            return place.clamp(0, self.size - 1)
        if self.mode == "reflect":
            place = place.abs()
            return torch.minimum(place, 2 * (self.size - 1) - place)
        return torch.where((place >= 0) & (place < self.size), place, -1)


def axes_of(
    taps: Iterable[int],
    *,
    size: Size = None,
    stride: int | tuple[int, ...] = 1,
    padding: int | tuple[int, ...] | str = 0,
    dilation: int | tuple[int, ...] = 1,
    padding_mode: str = "zeros",
    whole_strides: bool = False,
) -> list[Axis]:
    """Return the axes of a convolution from torch's arguments.

    Raises:
        UnboundedModuleError: an unknown padding mode.
        ValueError: an unknown name of a padding, numbers that are not as many as the axes or out of
            range, a kernel that does not fit in the padded image, reflections beyond the image.
    """
    if padding_mode not in MODES:
        raise UnboundedModuleError(
            f"padding_mode={padding_mode!r} is none of {', '.join(map(repr, MODES))}"
        )
    lengths = tuple(taps)
    count = len(lengths)
    sizes = per_axis(size, count, least=1, what="size")
    strides = per_axis(stride, count, least=1, what="stride")
    dilations = per_axis(dilation, count, least=1, what="dilation")
    sides = _sides(padding, lengths, dilations)
    axes = [
        Axis(n, k, *around, s, d, padding_mode, whole_strides)  # type: ignore[arg-type]
        for n, k, around, s, d in zip(sizes, lengths, sides, strides, dilations, strict=True)
    ]
    for axis in axes:
        _check(axis)
    return axes


def per_axis(
    value: int | Iterable[int | None] | None, count: int, *, least: int = 0, what: str = "argument"
) -> tuple[int | None, ...]:
    """Torch's way to give one number for all axes.

    Raises:
        ValueError: other than one number, or one for each axis; a number below ``least``.
    """
    numbers = (value,) if value is None or isinstance(value, int) else tuple(value)
    if len(numbers) == 1:
        numbers *= count
    if len(numbers) != count or any(n is not None and n < least for n in numbers):
        raise ValueError(f"{what} must be {count} numbers, at least {least}, got {value}")
    return numbers


def _sides(
    padding: int | tuple[int, ...] | str,
    taps: tuple[int, ...],
    dilations: tuple[int | None, ...],
) -> list[tuple[int, int]]:
    """Pixels before and after; ``"same"`` puts the odd one after."""
    if not isinstance(padding, str):
        return [(p or 0, p or 0) for p in per_axis(padding, len(taps), what="padding")]
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be a number of pixels, 'same' or 'valid', got {padding!r}")
    totals = [(k - 1) * (d or 1) for k, d in zip(taps, dilations, strict=True)]
    return [(t // 2, t - t // 2) if padding == "same" else (0, 0) for t in totals]


def _check(axis: Axis) -> None:
    if axis.size is None:
        return
    if axis.outputs < 1:
        raise ValueError(f"a kernel that spans {axis.reach} pixels does not fit into {axis.size}")
    if axis.mode == "reflect" and max(axis.before, axis.after) >= axis.size:
        raise ValueError(
            f"reflect padding of {max(axis.before, axis.after)} needs more than {axis.size} pixels"
        )


def excess(axes: Iterable[Axis]) -> int:
    """Factor by which repeated pixels or rows may raise the squared norm."""
    return math.prod(axis.repeats for axis in axes)
