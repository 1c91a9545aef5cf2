r"""Gram matrices of the symbol of a convolution, frequency by frequency.

With :math:`D(\omega) = \sum_t K_t e^{-i \omega t}` the map of frequency :math:`\omega`, the Gram
matrix is a trigonometric polynomial itself,

.. math:: D(\omega) D(\omega)^H = G_0 + \sum_{d > 0} (G_d e^{i \omega d} + G_d^T e^{-i \omega d}) ,
          \qquad G_d = \sum_t K_t K_{t + d}^T ,

with d over one of each pair of opposite displacements. From the taps :math:`G_d` it is two real
products for all frequencies, which for more than a few channels takes much less than forming D and
multiplying. Kernels of many taps on few channels go the other way.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from onelip.norms.rounding import UNDERFLOW, frobenius, gamma, upward

TWIDDLE_ERROR = 2.0**-48  # of a computed cos or sin of 2 pi j / q, 0 <= j < q; see twiddles


@dataclass(frozen=True)
class Frequencies:
    """Frequencies ``2 pi numerator / denominators``, exactly.

    Attributes:
        numerators: ``(count, axes)``, integers.
        denominators: one for each axis.
    """

    numerators: Tensor
    denominators: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numerators)

    def __getitem__(self, which: Tensor | slice) -> "Frequencies":
        return Frequencies(self.numerators[which], self.denominators)


def half_grid(sizes: Sequence[int], device: torch.device | None = None) -> Frequencies:
    """Return half of the frequencies of a circular grid; those left out are conjugates."""
    ranges = [torch.arange(n, device=device) for n in sizes]
    ranges[-1] = ranges[-1][: sizes[-1] // 2 + 1]
    return Frequencies(torch.cartesian_prod(*ranges).view(-1, len(sizes)), tuple(sizes))


def half_space(taps: Sequence[int]) -> list[tuple[int, ...]]:
    """One of each pair of opposite displacements between taps, 0 left out."""
    ranges = [range(1 - n, n) for n in taps]
    none = (0,) * len(taps)
    return [shift for shift in itertools.product(*ranges) if shift > none]


def gram_tap(kernels: Tensor, shift: tuple[int, ...]) -> Tensor:
    """Compute ``sum_t K_t K_{t + d}^T`` for one displacement, as one product of matrices.

    Args:
        kernels: ``(..., rows, columns, *taps)``, as many axes of taps as the displacement has.
        shift: the displacement d.
    """
    left = right = kernels
    for axis, by in enumerate(shift, start=-len(shift)):
        count = kernels.shape[axis] - abs(by)
        left = left.narrow(axis, max(0, -by), count)
        right = right.narrow(axis, max(0, by), count)
    first = -len(shift) - 1
    product: Tensor = left.flatten(first) @ right.flatten(first).mT
    return product


def twiddles(at: Frequencies, shifts: Tensor) -> Tensor:
    """``exp(2 pi i shift numerator / denominator)``, summed over axes; ``(frequency, shift)``.

    The angles are reduced exactly, in integers. A quotient below 1 times 2 pi is off by less than
    4 u 2 pi < 2^-48.3, cos and sin by one more unit in the last place, and a product of factors by
    the sum of theirs: ``TWIDDLE_ERROR`` is multiplied by the number of axes where it is used, with
    room for the rounding of the products. The test-suite compares every grid up to 256 with ball
    arithmetic.
    """
    factors = []
    for axis, size in enumerate(at.denominators):
        index = at.numerators[:, axis, None] * shifts[:, axis] % size
        angle = index.double() / size * (2 * math.pi)
        factors.append(torch.polar(torch.ones_like(angle), angle))
    return torch.stack(factors).prod(0) if len(factors) > 1 else factors[0]


@dataclass(frozen=True)
class GramSymbol:
    """Gram matrices ``D(omega) D(omega)^H`` of kernels with entries up to about 1.

    Attributes:
        kernels: ``(groups, rows, columns, *taps)``, float64; rows are the smaller side.
    """

    kernels: Tensor

    @property
    def degrees(self) -> tuple[int, ...]:
        """Degree of the Gram matrix as a trigonometric polynomial, along each axis."""
        return tuple(n - 1 for n in self.kernels.shape[3:])

    def __call__(self, at: Frequencies) -> Tensor:
        """Compute the matrices, ``(frequencies, groups, rows, rows)``, complex128."""
        return self._from_taps(at) if self._many_channels else self._from_maps(at)

    @cached_property
    def error(self) -> Tensor:
        """Bound of the Frobenius norm of what each computed matrix is off by, times ``sqrt(2)``.

        The root is what a matrix may be off by whose lower triangle alone is used.
        """
        taps, axes = math.prod(self.kernels.shape[3:]), self.kernels.ndim - 3
        columns, twiddle = self.kernels.shape[2], 2 * axes * TWIDDLE_ERROR
        squares = frobenius(self.kernels.flatten(2)).square().max()
        if self._many_channels:
            # entries of all taps together are at most products of lengths of parts of rows
            shifts = 2 * len(self._shifts) + 1
            each = gamma(columns * taps + 2) + twiddle + gamma(shifts + 8)
            bound = upward(shifts * squares * each, 8)
        else:
            # by Cauchy and Schwarz the absolute values of all taps add up to at most that
            reach = upward(frobenius(self.kernels.abs().flatten(3).sum(-1)).square().max(), taps)
            each = 2 * (twiddle + gamma(2 * taps + 8)) + gamma(8 * (columns + 4))
            bound = upward(reach * each * 2, 8)
        return 1.5 * bound + 16 * UNDERFLOW * self.kernels[0].numel() * taps

    @property
    def work(self) -> float:
        """Operations that the matrices of one frequency take, roughly."""
        groups, rows, columns = self.kernels.shape[:3]
        taps = math.prod(self.kernels.shape[3:])
        pairs = math.prod(2 * n - 1 for n in self.kernels.shape[3:]) // 2
        from_taps = 4 * pairs * rows**2
        from_maps = 4 * taps * rows * columns + 8 * rows**2 * columns
        return float(groups * (from_taps if self._many_channels else from_maps))

    @cached_property
    def _shifts(self) -> list[tuple[int, ...]]:
        return half_space(self.kernels.shape[3:])

    @cached_property
    def _many_channels(self) -> bool:
        rows, columns = self.kernels.shape[1:3]
        taps = math.prod(self.kernels.shape[3:])
        pairs = math.prod(2 * n - 1 for n in self.kernels.shape[3:]) // 2
        return pairs * rows <= columns * (taps + 2 * rows)

    @cached_property
    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Displacements, and what is multiplied by their cosines and by their sines."""
        centre = gram_tap(self.kernels, (0,) * (self.kernels.ndim - 3))
        taps = [gram_tap(self.kernels, shift) for shift in self._shifts]
        even = torch.stack([centre, *(tap + tap.mT for tap in taps)])
        odd = torch.stack([torch.zeros_like(centre), *(tap - tap.mT for tap in taps)])
        none = (0,) * (self.kernels.ndim - 3)
        shifts = torch.tensor([none, *self._shifts], device=self.kernels.device)
        return shifts.view(-1, len(none)), even.flatten(1), odd.flatten(1)

    def _from_taps(self, at: Frequencies) -> Tensor:
        shifts, even, odd = self._parts
        turns = twiddles(at, shifts)
        groups, rows = self.kernels.shape[:2]
        matrices = torch.complex(turns.real @ even, turns.imag @ odd)
        return matrices.view(len(at), groups, rows, rows)

    def _from_maps(self, at: Frequencies) -> Tensor:
        groups, rows, columns, *lengths = self.kernels.shape
        places = [range(n) for n in lengths]
        shifts = torch.tensor(list(itertools.product(*places)), device=self.kernels.device)
        turns = twiddles(at, -shifts.view(-1, len(lengths)))
        taps = self.kernels.flatten(3).movedim(3, 0).flatten(1)
        maps = torch.complex(turns.real @ taps, turns.imag @ taps)
        maps = maps.view(len(at), groups, rows, columns)
        return maps @ maps.mH
