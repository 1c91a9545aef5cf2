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
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.semidefinite.forms import (
    Form,
    Multipliers,
    as_matrix,
    form,
    scaled,
    times,
)
from onelip.bounds.semidefinite.matrices import Matrices
from onelip.norms.rounding import downward, frobenius, sum_error, upward
from onelip.norms.verification import Dense, below, cholesky, gap

_MARGINS = (0.0, 1e-9, 1e-8, 1e-7, 1e-6, 1e-4, 1e-2)  # the first that the proof accepts is taken
_KNOWN_MARGINS = (1e-9, 1e-8, 1e-7)  # above a level that the multipliers were chosen for
_ENOUGH = 1e-7  # relative excess over the guess that ends the search
_SCALES = (1.0, 1 + 1e-7, 1.03, 1.1, 1.2, 1.4, 2.0)  # of the multipliers
_INVERSE_STEPS = 10
_STACKED = 2**22  # numbers in a stack of matrices that are proved together
_NOISE = 1e-24  # of a squared constant, relative to the norms that it was computed from


@torch.no_grad()
def proved(
    network: Matrices, multipliers: list[Multipliers], level: Tensor | None = None
) -> Tensor:
    r"""Proved bound of the Lipschitz constant from given multipliers.

    Bound: never below the exact constant, for any multipliers and any level; the product of the
        layers' constants where they are useless. Good ones lose about 1e-7, relative, to rounding.
    Cost: :math:`O(\sum n_k^3)` in float64: with a level some three factorisations and five
        products per layer, layers of one size together; without one, some ten factorisations.

    Args:
        network: the chain, written out.
        multipliers: one set per layer.
        level: the squared constant of the scaled chain that they are said to prove; looked for,
            with the best factor for all multipliers, if left out or wrong.

    Returns:
        A 0-d float64 tensor.

    Raises:
        ValueError: multipliers of the wrong kind or size.
    """
    product = network.product
    if not network.kinds or not torch.isfinite(product) or product == 0:
        return product
    best = torch.tensor(math.inf, dtype=torch.float64)
    for forms, guess in _trials(network, multipliers, level):
        best = torch.fmin(best, _proved_at(network, forms, guess))
        if best <= guess * (1 + _ENOUGH):
            break
    return torch.fmin(product, network.unscaled(upward(best.sqrt(), 4)))


def _trials(
    network: Matrices, multipliers: list[Multipliers], level: Tensor | None
) -> Iterator[tuple[list[Form], Tensor]]:
    """Yield inequalities and the level to try with them, the most promising first.

    The multipliers of the inequalities are divided by their level: see ``_proved_at``.
    """
    if level is not None and 0 < level < math.inf:
        forms = _forms(network, multipliers, 1 / float(level))
        for margin in _KNOWN_MARGINS:
            yield forms, level * (1 + margin)
    scale = _best_scale(network, multipliers)
    for margin in _MARGINS:
        larger = scale * (1 + margin)
        guess = _guess(network, _forms(network, multipliers, larger)) * (1 + margin)
        if torch.isfinite(guess) and guess > 0:
            yield _forms(network, multipliers, larger / float(guess)), guess


def _best_scale(network: Matrices, multipliers: list[Multipliers]) -> float:
    """Return the factor of the multipliers, 1 or a little more, that seems to prove most."""
    best, least = 1.0, math.inf
    for scale in _SCALES:
        guess = float(_guess(network, _forms(network, multipliers, scale)))
        if guess < least:
            best, least = scale, guess
        elif least < math.inf:
            break  # the level is convex in the scale
    return best


def _forms(network: Matrices, multipliers: list[Multipliers], scale: float) -> list[Form]:
    """Return the inequalities of scaled multipliers."""
    pairs = zip(network.kinds, multipliers, strict=True)
    return [form(kind, scaled(single, scale)) for kind, single in pairs]


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
    noise = _NOISE * frobenius(inside) * frobenius(root).square()
    return torch.maximum(largest, noise).nan_to_num(math.inf, math.inf)


class _Stage(NamedTuple):
    """Factorisation of one layer: the block on the diagonal before it, and the one beside."""

    base: Tensor  # what the block on the diagonal started from
    block: Tensor
    factor: Tensor
    corner: Tensor
    link: Tensor  # the factor's block beside the diagonal
    after: Tensor  # what the next block on the diagonal starts from
    rest: Tensor  # what is left of the next block on the diagonal


class _Sizes(NamedTuple):
    """Norms of the parts of a stage, all bounds from above but for ``least``."""

    base: float
    factor: float
    link: float
    residual: float  # of the block on the diagonal
    beside: float  # of the block beside it
    least: float  # eigenvalue of what is left for the next layer; negative if unproved


def _proved_at(network: Matrices, forms: list[Form], level: Tensor) -> Tensor:
    r"""Return a bound of the squared constant that is ``level`` but for the losses of all layers.

    The form is divided by the level, so that all is about 1, however small the constant is:
    :math:`|x_0|^2` has the factor 1, and :math:`|W_L x_L|^2` has :math:`1 / \rho`.
    """
    sizes, rest = _measured(network, forms)
    terms, distance, loss, before = network.terms, 1.0, 0.0, 0.0
    for index, (single, size) in enumerate(zip(forms, sizes, strict=True)):
        weight = float(frobenius(network.weights[index]))
        off = float(network.errors[index]) * distance
        image = float(network.norms[index]) * distance + off
        inside, across, error = _size(single.before), _size(single.cross), float(single.error)
        lengths = size.base + inside * weight * weight + before * before
        residual = upward(size.residual + sum_error(terms, lengths), 1)
        lengths = size.link * size.factor + across * weight
        # Residual beside the diagonal: the triangular solve is not trusted, but measured.
        mixed = (size.beside + sum_error(terms, lengths)) * distance + error * image + across * off
        mixed = upward(mixed, 12)
        loss = loss + residual * distance * distance + error * image * image
        loss = upward(loss + inside * (2 * image + off) * off, 24)
        ahead = upward(float(network.growths[index]) * distance, 2)
        least = downward(size.least - error, 2)
        if least > 0:  # least n^2 <= 1 + loss + 2 mixed n
            root = math.sqrt(mixed * mixed + upward(1 + loss, 2) * least)
            ahead = min(ahead, upward((mixed + root) / least, 12))
        distance, before = ahead, size.link
        loss = upward(loss + error * distance * distance + 2 * mixed * distance, 12)
    lengths = float(frobenius(as_matrix(forms[-1].after))) + before * before
    residual = _last_residual(network, rest, level, lengths)
    return upward(level * (1 + loss + residual * distance * distance), 24)


def _last_residual(network: Matrices, rest: Tensor, level: Tensor, lengths: float) -> float:
    """Bound what the last block of the form lacks; ``lengths`` are those of what is left for it."""
    weight, off, norm = network.weights[-1], network.errors[-1], network.norms[-1]
    block = rest - weight.mT @ weight / level
    square = upward(frobenius(weight).square() / level, 4)
    residual = gap(Dense(block), _cholesky(block)) + sum_error(network.terms, lengths + square)
    return float(upward(residual + (2 * norm * off + 3 * off.square()) / level, 12))


def _stages(network: Matrices, forms: list[Form]) -> Iterator[_Stage]:
    """Factor the form layer by layer; nothing of it is trusted."""
    base = rest = torch.eye(network.weights[0].shape[1], dtype=torch.float64)
    for weight, single in zip(network.weights, forms, strict=False):
        block = rest
        if single.before.any():
            block = rest - weight.mT @ times(single.before, weight)
        factor = _cholesky(block)
        corner = -times(single.cross, weight)
        link = torch.linalg.solve_triangular(factor, corner.mT, upper=False).mT
        after = as_matrix(single.after)
        rest = after - link @ link.mT
        yield _Stage(base, block, factor, corner, link, after, rest)
        base = after


def _measured(network: Matrices, forms: list[Form]) -> tuple[list[_Sizes], Tensor]:
    """Measure all stages, those of one size together; return what is left for the last map, too."""
    sizes: dict[int, _Sizes] = {}
    waiting: dict[torch.Size, list[tuple[int, _Stage]]] = {}
    for index, stage in enumerate(_stages(network, forms)):
        shape = stage.corner.shape
        together = waiting.setdefault(shape, [])
        together.append((index, stage))
        if len(together) * max(shape) ** 2 >= _STACKED:
            sizes |= _sizes(waiting.pop(shape), network.terms)
    for together in waiting.values():
        sizes |= _sizes(together, network.terms)
    return [sizes[index] for index in range(len(forms))], stage.rest


def _sizes(stages: list[tuple[int, _Stage]], terms: int) -> dict[int, _Sizes]:
    """Measure stages of one size in one batch, by their index."""
    columns = zip(*(stage for _, stage in stages), strict=True)
    parts = [torch.stack(column) if len(stages) > 1 else column[0][None] for column in columns]
    base, block, factor, corner, link, after, rest = parts
    computed = frobenius(after) + frobenius(link).square()
    measured = [
        frobenius(base),
        frobenius(factor),
        frobenius(link),
        gap(Dense(block), factor),
        frobenius(corner - link @ factor.mT),
        downward(_smallest_eigenvalues(rest) - sum_error(terms, computed), 1),
    ]
    rows = torch.stack(measured, 1).tolist()
    return {index: _Sizes(*row) for (index, _), row in zip(stages, rows, strict=True)}


def _smallest_eigenvalues(matrices: Tensor) -> Tensor:
    """Bound the smallest eigenvalues of a batch from below; negative if unproved."""
    factor = cholesky(matrices)
    vector = matrices.new_ones(*matrices.shape[:2], 1)
    for _ in range(_INVERSE_STEPS):
        length = torch.linalg.vector_norm(vector, dim=1, keepdim=True)
        vector = torch.cholesky_solve(vector / length, factor)
    largest = torch.linalg.vector_norm(vector, dim=(1, 2))
    bounds: Tensor = below(Dense(matrices), 0.5 / largest).bound
    return bounds.nan_to_num(-1, -1, -1).clamp_min(-1)


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


def _size(part: Tensor) -> float:
    """Bound the spectral norm."""
    return float(part.abs().max() if part.ndim == 1 else frobenius(part))
