r"""Proof of a Lipschitz bound from any multipliers.

For a plain chain let :math:`x_0` be the difference of two inputs, :math:`x_{k+1}` the difference
of the outputs of layer k, :math:`y_k = W_k x_k`. Each layer obeys a quadratic inequality

.. math:: -x_{k+1}^T C_k x_{k+1} + 2 x_{k+1}^T B_k y_k + y_k^T A_k y_k \ge 0 ,

whose matrices come from multipliers (``forms.py``). Take the sum of all from
:math:`\rho |x_0|^2 - |W_L x_L|^2`: the rest is a quadratic form of all differences, with a
block tridiagonal matrix :math:`Q(\rho)`. If it is positive semidefinite, :math:`\rho` is a bound
of the squared constant. Positive it is up to the residual of *any* block factor, as in
``norms/verification.py``,

.. math:: v^T Q v \ge -\sum_{kl} \|R_{kl}\|_F |v_k| |v_l|, \qquad R = Q - L L^T,

and the :math:`|v_k|` are bounded by proved constants :math:`N_k` times :math:`|x_0|`: products of
norms, or the bound from the part of the factor up to k, which is much smaller in deep networks.
So :math:`\rho + \sum \|R_{kl}\|_F N_k N_l` is a bound for every :math:`\rho`, every factor and
every choice of multipliers; good ones only make it small.

Reference: Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for deep neural
networks" (2019).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.semidefinite.forms import Form, Multipliers, as_matrix, form, scaled, times
from onelip.bounds.semidefinite.matrices import Matrices
from onelip.norms.rounding import downward, frobenius, sum_error, upward
from onelip.norms.verification import Dense, below, gap

_MARGINS = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-4, 1e-2)  # the first that the proof accepts is taken
_ENOUGH = 1e-7  # relative excess over the guess that ends the search
_SCALES = (1.0, 1 + 1e-7, 1.03, 1.1, 1.2, 1.4, 2.0)  # of the multipliers
_INVERSE_STEPS = 10


@torch.no_grad()
def proved(network: Matrices, multipliers: list[Multipliers]) -> Tensor:
    r"""Proved bound of the Lipschitz constant from given multipliers.

    Bound: never below the exact constant, for any multipliers; the product of the layers' constants
        where they are useless. Good ones lose about 1e-7, relative, to rounding.
    Cost: :math:`O(\sum n_k^3)` in float64, some ten factorisations per layer.

    Args:
        network: the chain, written out.
        multipliers: one set per layer.

    Returns:
        A 0-d float64 tensor.

    Raises:
        ValueError: multipliers of the wrong kind or size.
    """
    product = network.product
    if not network.kinds or not torch.isfinite(product) or product == 0:
        return product
    scale = _best_scale(network, multipliers)
    best = torch.tensor(math.inf, dtype=torch.float64)
    for margin in _MARGINS:
        forms, guess = _at_scale(network, multipliers, scale * (1 + margin))
        level = guess * (1 + margin)
        if torch.isfinite(level):
            best = torch.fmin(best, _proved_at(network, forms, level))
            if best <= level * (1 + _ENOUGH):
                break
    return torch.fmin(product, network.unscaled(upward(best.sqrt(), 4)))


def _best_scale(network: Matrices, multipliers: list[Multipliers]) -> float:
    """Return the factor of the multipliers, 1 or a little more, that seems to prove most."""
    best, least = 1.0, math.inf
    for scale in _SCALES:
        guess = float(_at_scale(network, multipliers, scale)[1])
        if guess < least:
            best, least = scale, guess
        elif least < math.inf:
            break  # the level is convex in the scale
    return best


def _at_scale(
    network: Matrices, multipliers: list[Multipliers], scale: float
) -> tuple[list[Form], Tensor]:
    """Return the inequalities of scaled multipliers, and the level that they seem to prove."""
    pairs = zip(network.kinds, multipliers, strict=True)
    forms = [form(kind, scaled(single, scale)) for kind, single in pairs]
    return forms, _guess(network, forms)


def _guess(network: Matrices, forms: list[Form]) -> Tensor:
    """Guess the smallest level whose form is positive, by elimination from last layer to first.

    A guess, not a bound; infinite if some layer's multipliers are too small for what follows.
    """
    wanted = network.weights[-1].mT @ network.weights[-1]
    for single, weight in zip(reversed(forms), network.weights[-2::-1], strict=True):
        factor, failed = torch.linalg.cholesky_ex(as_matrix(single.after) - wanted)
        if failed:
            return torch.tensor(math.inf, dtype=torch.float64)
        half = times(single.cross, torch.cholesky_inverse(factor)).mT
        inside = as_matrix(single.before) + times(single.cross, half)
        if not torch.isfinite(inside).all():
            return torch.tensor(math.inf, dtype=torch.float64)
        if weight is not network.weights[0]:
            wanted = weight.mT @ inside @ weight
    root = network.weights[0]
    if root.shape[0] < root.shape[1]:
        values, vectors = torch.linalg.eigh(root @ root.mT)
        root = vectors * values.clamp_min(0).sqrt()
    # The largest eigenvalue of W_0^T inside W_0, in the smaller of the two dimensions.
    largest = torch.linalg.eigvalsh(root.mT @ inside @ root)[-1]
    product = torch.stack(network.growths).prod()
    return torch.maximum(largest, 1e-24 * product.square()).nan_to_num(math.inf, math.inf)


class _Reached(NamedTuple):
    """State of the proof after some layers."""

    distance: Tensor  # N_k: how far the difference may have grown
    loss: Tensor  # what the level must be raised by, so far
    link: Tensor | None  # the factor's block below the last one on the diagonal
    base: Tensor  # what the block on the diagonal of the form starts from


def _proved_at(network: Matrices, forms: list[Form], level: Tensor) -> Tensor:
    """Return ``level`` plus the losses of all layers."""
    one, zero = torch.ones_like(level), torch.zeros_like(level)
    eye = torch.eye(network.weights[0].shape[1], dtype=torch.float64)
    reached = _Reached(one, zero, None, level * eye)
    for index, single in enumerate(forms):
        reached = _through(network, index, single, reached, level)
    weight, off, norm = network.weights[-1], network.errors[-1], network.norms[-1]
    block = reached.base - weight.mT @ weight
    _, residual = _factored(block, reached, frobenius(weight).square(), network.terms)
    residual = residual + 2 * norm * off + 3 * off.square()
    return upward(level + reached.loss + residual * reached.distance.square(), 16)


def _through(
    network: Matrices, index: int, single: Form, reached: _Reached, level: Tensor
) -> _Reached:
    """Extend the proof by one layer."""
    weight, off = network.weights[index], network.errors[index] * reached.distance
    image = network.norms[index] * reached.distance + off
    size = _size(single.before) * frobenius(weight).square()
    block = reached.base - weight.mT @ times(single.before, weight)
    factor, residual = _factored(block, reached, size, network.terms)
    corner = -times(single.cross, weight)
    link = torch.linalg.solve_triangular(factor, corner.mT, upper=False).mT
    lengths = frobenius(link) * frobenius(factor) + _size(single.cross) * frobenius(weight)
    # Residual beside the diagonal: the triangular solve is not trusted, but measured.
    beside = frobenius(corner - link @ factor.mT) + sum_error(network.terms, lengths)
    base = as_matrix(single.after)
    loss = reached.loss + residual * reached.distance.square() + single.error * image.square()
    loss = upward(loss + _size(single.before) * (2 * image + off) * off, 24)
    mixed = beside * reached.distance + single.error * image + _size(single.cross) * off
    mixed = upward(mixed, 12)
    least = downward(_smallest_eigenvalue(base, link, network.terms) - single.error, 2)
    distance = upward(network.growths[index] * reached.distance, 2)
    if least > 0:  # least n^2 <= level + loss + 2 mixed n
        root = (mixed.square() + upward(level + loss, 2) * least).sqrt()
        distance = torch.fmin(distance, upward((mixed + root) / least, 12))
    loss = loss + single.error * distance.square() + 2 * mixed * distance
    return _Reached(distance, upward(loss, 12), link, base)


def _factored(block: Tensor, reached: _Reached, size: Tensor, terms: int) -> tuple[Tensor, Tensor]:
    """Factor a block on the diagonal, and bound the norm of its residual.

    ``size`` bounds the products from which the block was computed.
    """
    lengths = frobenius(reached.base) + size
    if reached.link is not None:
        block = block - reached.link @ reached.link.mT
        lengths = lengths + frobenius(reached.link).square()
    factor = _cholesky(block)
    return factor, upward(gap(Dense(block), factor) + sum_error(terms, lengths), 1)


def _smallest_eigenvalue(base: Tensor, link: Tensor, terms: int) -> Tensor:
    """Bound the smallest eigenvalue of ``base - link link^T`` from below; negative if unproved."""
    rest = base - link @ link.mT
    factor = _cholesky(rest)
    vector = rest.new_ones(len(rest), 1)
    for _ in range(_INVERSE_STEPS):
        vector = torch.cholesky_solve(vector / vector.norm(), factor)
    off = sum_error(terms, frobenius(base) + frobenius(link).square())
    least: Tensor = below(Dense(rest, _cholesky), 0.5 / vector.norm()).bound - off
    return downward(least.nan_to_num(-1, -1, -1).clamp_min(-1), 1)


def _cholesky(matrix: Tensor) -> Tensor:
    """Return a factor of a matrix, or of one a little larger: its residual is measured."""
    factor, failed = torch.linalg.cholesky_ex(matrix)
    eye = torch.eye(len(matrix), dtype=torch.float64)
    shift = 1e-16 * float(matrix.diagonal().abs().max())
    while failed and 0 < shift < math.inf:
        factor, failed = torch.linalg.cholesky_ex(matrix + shift * eye)
        shift *= 10
    found: Tensor = factor
    return found


def _size(part: Tensor) -> Tensor:
    """Bound the spectral norm."""
    return part.abs().max() if part.ndim == 1 else frobenius(part)
