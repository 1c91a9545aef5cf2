r"""Proved norms of all products of neighbouring maps of a chain, in one sweep.

LipLT asks for the norm of :math:`W_k \cdots W_i` for all :math:`i \le k`. One by one that is
:math:`L^3 / 6` products of two matrices, and a proof for each. Here the basis of the input of every
map travels through the maps that follow, all in one batch: each map is applied once, and the
proofs of products of one size are made together.

The rounding error of map l in the product from i to k is enlarged by no more than the maps after
it, :math:`\|W_k \cdots W_{l+1}\|`, which the same sweep has bounded: what it knows of the product
up to k - 1, times :math:`\|W_k\|`.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor

from onelip.bounds.products.costs import multiplications
from onelip.bounds.products.norms import Norms
from onelip.bounds.products.scaled_maps import above, fraction
from onelip.bounds.semidefinite.matrices import stacks
from onelip.chains import LinearMap
from onelip.deadline import OutOfTimeError
from onelip.norms.batched import each
from onelip.norms.rounding import (
    UNDERFLOW,
    downward,
    frobenius,
    gamma,
    product_error,
    sum_error,
    upward,
)
from onelip.norms.spectral import ends_above

_NUMBERS = 2**26  # that are held at a time: half a gigabyte
_STACKED = 2**18  # in a stack of matrices whose norms are proved together
_PROOF = 15  # multiplications of a proof for n x m numbers, in units of n^2 m, n the smaller
_RANGE = 32  # images are scaled where their exponents leave it
_SQUARINGS = 4  # of a Gram matrix
_TIGHT = 4e-9  # relative excess of a bound of a squared norm that needs no other proof
_SMALLEST = 2.0**-900  # products of norms below it are not divided by


def work_of(maps: list[LinearMap]) -> float:
    """Estimate the multiplications of a sweep; infinite if it takes too much memory."""
    work, held, vectors = 0.0, 0, 0
    for k, linear in enumerate(maps):
        vectors += linear.columns
        held = max(held, vectors * (max(linear.rows, linear.columns) + k))
        work += vectors * multiplications(linear) + _proofs(maps[: k + 1])
    return work if held <= _NUMBERS else math.inf


def _proofs(maps: list[LinearMap]) -> float:
    """Estimate the multiplications of the proofs of all products that end with the last map."""
    rows = maps[-1].rows
    sizes = [(min(m.columns, rows), max(m.columns, rows)) for m in maps]
    return float(sum(_PROOF * small**2 * large for small, large in sizes))


class Intervals:
    """Norms of products of neighbouring maps, as many as the time of ``norms`` allows.

    Attributes:
        singles: bounds of the norms of the maps.
        ratios: ``ratios[k][i]`` times the singles of the maps i to k bounds the norm of their
            product; float64, at most 1, for as many k as there was time.
    """

    def __init__(self, maps: list[LinearMap], norms: Norms) -> None:
        self.singles: list[Fraction] = []
        self.ratios: list[Tensor] = []
        state, in_time = _State(), True
        for k, linear in enumerate(maps):
            # A number times maps with entries of about 1, so that nothing overflows.
            number, cores = norms.split(linear)
            own = above(norms.of(cores) if cores else Fraction(1))
            self.singles.append(number * fraction(own))
            work = (len(state.x) + linear.columns) * multiplications(linear)
            try:
                if in_time:
                    norms.deadline.allow(work + _proofs(maps[: k + 1]))
                    state.begin(linear.columns)
                    x, lost = norms.pushed(cores, state.as_inputs_of(linear), adjoint=False)
                    state.after(x.flatten(1), lost, float(own))
                    self.ratios.append(torch.tensor(state.ratios, dtype=torch.float64))
            except OutOfTimeError:
                in_time = False


class _State:
    """Images of the bases at which the products start.

    Maps count as divided by powers of two that make their own norms about 1. The images of basis i
    are stored multiplied by ``2 ** exponents[i]``, and so is what was lost of them.
    """

    def __init__(self) -> None:
        self.x = torch.zeros(0, 0, dtype=torch.float64)
        self.lost = torch.zeros(0, 0, dtype=torch.float64)  # by each map, for each basis
        self.sizes: list[int] = []  # vectors of each basis
        self.exponents: list[int] = []
        self.ratios: list[float] = []  # of norms to products of the maps' own
        self.singles: list[float] = []  # products of the maps' own norms, from below

    def begin(self, size: int) -> None:
        """Add the basis of a space of this size, in which all images are now."""
        eye = torch.eye(size, dtype=torch.float64)
        self.x = torch.cat([self.x, eye]) if self.sizes else eye
        self.lost = torch.cat([self.lost, self.lost.new_zeros(len(self.lost), 1)], 1)
        self.sizes.append(size)
        self.exponents.append(0)
        self.ratios.append(1.0)
        self.singles.append(1.0)

    def as_inputs_of(self, linear: LinearMap) -> Tensor:
        """Return all images as a batch of inputs."""
        images: Tensor = self.x.unflatten(1, linear.inputs)
        return images

    def after(self, x: Tensor, lost: Tensor, own: float) -> None:
        """Replace all images by those under the next map, and prove their norms.

        Args:
            x: the images.
            lost: of each, its rounding error.
            own: a bound of the map's norm.
        """
        count, (own, exponent) = len(self.sizes), math.frexp(own)
        self.x, self.exponents = x, [old + exponent for old in self.exponents]
        # What map l has lost passes the maps from l + 1 on.
        known = zip(self.ratios[1:-1], self.singles[1:-1], strict=True)
        ahead = [ratio * max(single, _SMALLEST) * own for ratio, single in known]
        ahead += [*[own] * (count > 1), 1.0]
        factors = torch.tensor(ahead, dtype=torch.float64) * (1 + gamma(8 * count + 8))
        new = torch.stack([frobenius(part[None]) for part in lost.split(self.sizes)])
        self.lost = torch.cat([self.lost * 2.0**exponent, new[None]]) + UNDERFLOW
        errors = upward(factors @ self.lost, 2 * count + 4)
        self.singles = [downward(single * own, 2) for single in self.singles]
        for i, bound in enumerate(self._proved(errors)):
            if math.isfinite(bound) and self.singles[i] >= _SMALLEST:
                norm = max(math.ldexp(bound, -self.exponents[i]), UNDERFLOW)
                self.ratios[i] = min(self.ratios[i], upward(norm / self.singles[i], 2))
        self._rescale()

    def _rescale(self) -> None:
        """Multiply the images of each basis by a power of two that brings them close to 1."""
        largest = torch.stack([part.abs().max() for part in self.x.split(self.sizes)])
        exponents = torch.frexp(largest).exponent
        if not (exponents.abs() > _RANGE).any():
            return
        exponents = torch.where(torch.isfinite(largest), -exponents, 0).clamp(-1000, 1000)
        self.exponents = [a + b for a, b in zip(self.exponents, exponents.tolist(), strict=True)]
        scales = torch.ldexp(torch.ones_like(largest), exponents)
        sizes = torch.tensor(self.sizes)
        # Exact but for underflow, and what that takes is added.
        self.x = self.x * scales.repeat_interleave(sizes)[:, None]
        self.lost = self.lost * scales + UNDERFLOW
        self.lost[-1] += UNDERFLOW * sizes * self.x.shape[1]

    def _proved(self, errors: Tensor) -> list[float]:
        """Prove the norm of the images of each basis; not finite where it failed."""
        found = [math.nan] * len(self.sizes)
        parts = self.x.split(self.sizes)
        for group in stacks([part.shape for part in parts], _STACKED):
            bounds = _each(torch.stack([parts[i] for i in group]), errors[group])
            for i, bound in zip(group, bounds.tolist(), strict=True):
                found[i] = bound
        return found


def _each(matrices: Tensor, errors: Tensor) -> Tensor:
    r"""Prove the norm of each matrix, most of which are almost of rank one in deep networks.

    With the Gram matrix G, :math:`\|G\|^{2^q} \le \|G^{2^q}\|_F`, which is tight where the second
    eigenvalue is small beside the first. The others are proved by factorisations.
    """
    tall = matrices if matrices.shape[1] >= matrices.shape[2] else matrices.mT
    largest = torch.frexp(tall.abs().amax((1, 2))).exponent
    scales = torch.ldexp(torch.ones_like(errors), -largest.clamp(-500, 500))
    tall = tall * scales[:, None, None]  # exact but for underflow, entries up to 1
    gram, lost = tall.mT @ tall, product_error(tall)
    bounds, pending, power = torch.full_like(errors, math.inf), torch.arange(len(gram)), gram
    for squaring in range(_SQUARINGS + 1):
        size = frobenius(power)
        square = upward(size + lost, 1)
        for _ in range(squaring):
            square = upward(square.sqrt(), 1)
        bounds[pending] = square
        vector = power.sum(2, keepdim=True)
        image = gram[pending] @ vector
        least = torch.linalg.vector_norm(image, dim=(1, 2))
        least = least / torch.linalg.vector_norm(vector, dim=(1, 2))
        left = ~(square <= least * (1 + _TIGHT))
        pending, power, size, lost = pending[left], power[left], size[left], lost[left]
        if not len(pending) or squaring == _SQUARINGS:
            break
        # (P + d)^2 differs from the computed P^2 by twice P d, d^2 and the rounding.
        lost = upward(2 * size * lost + lost * lost, 6) + sum_error(power.shape[1], size * size)
        power, lost = power @ power, upward(lost, 2)
    norms = ends_above(upward(bounds, 1).sqrt() / scales + errors)
    if len(pending):
        norms[pending] = each(matrices[pending], errors[pending])
    return norms
