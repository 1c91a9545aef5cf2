r"""The largest norm of a symbol: on the points of a grid, or on the whole torus.

**On a grid** each Gram matrix is proved to be below one level, the largest eigenvalue found.

**On the torus** frequencies are divided into cells, and a cell is divided again only where it might
matter. For a unit vector v the function :math:`f(\omega) = |D(\omega)^H v|^2` is a trigonometric
polynomial between 0 and M, the largest square on the torus. By the inequality of Bernstein and
Szego :math:`f'^2 \le d^2 f (M - f)` along an axis of degree d, so :math:`\arcsin \sqrt{f / M}`
changes by at most d / 2 times the way. If M is attained in a cell with centre c and half widths
:math:`h_i`, and :math:`\delta = \sum_i d_i h_i / 2 < \pi / 2`, then

.. math:: M \le \lambda_{\max}(G(c)) / \cos^2 \delta .

So M is at most the largest of these numbers over all cells, whatever their sizes. (For cells of one
size this is the theorem of M. Riesz.) Where the norm is far below the largest, a cell may be wide.
"""

import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from onelip.norms.rounding import frobenius, upward
from onelip.norms.symbol import Frequencies, GramSymbol, half_grid
from onelip.norms.verification import Lower, above

_MARGIN = 1e-10  # how far above the guess the proof is tried first
_GUESSES = 2  # matrices whose eigenvalues are computed in one round
_LOOKS = 8  # matrices of a chunk that are looked at
_SAMPLE = 64  # points of a grid that are looked at first
_STEPS = 12  # of Lanczos, to choose
_LAST_STEPS = 60  # and for the level
_CLIMBERS = 4  # frequencies that are followed uphill
_CLIMBS = 5  # steps of half the length
_ROUNDS = 40
_CHUNK = 2**16  # complex numbers held at a time: what caches hold
_TURN = math.pi / 8  # delta of the first cells
_HALVINGS = (4, 3)  # of a cell, delta of pi / 128 or pi / 64, if all cells of that size take
_FINE_WORK = 1e9  # at most so many operations,
_OVERHEAD = 2e4  # of a factorisation, in operations
_COARSE = 2  # and otherwise: delta of pi / 32


def largest_on_grid(symbol: GramSymbol, sizes: tuple[int, ...]) -> Tensor:
    """Bound of the largest eigenvalue of the Gram matrices at the frequencies of a grid.

    Bound: within 1e-9, relative, up to the rounding of the Gram matrices.
    Cost: a Cholesky factor and a residual for half of the frequencies.
    """
    search, grid = _Search(symbol), half_grid(sizes, symbol.kernels.device)
    search.look(grid[:: -(-len(grid) // _SAMPLE)])
    for some in search.chunks(grid):
        search.settle(some)
    return search.bound


def largest_on_torus(symbol: GramSymbol) -> Tensor:
    """Bound of the largest eigenvalue of the Gram matrices at all frequencies.

    Bound: at most 1.1 % above the supremum; for kernels of few channels 0.07 %.
    Cost: as on a grid of 8 to 32 points for each axis and degree, the less the more norms differ.
    """
    search, degrees = _Search(symbol), symbol.degrees
    if not any(degrees):
        return largest_on_grid(symbol, (1,) * len(degrees))
    cells = _first_cells(degrees, symbol.kernels.device)
    looks = search.climb(cells)
    halvings = _halvings(symbol, len(cells))
    # what the finest cells leave, and a little more, so that a level that is right suffices
    excess = 1.01 * (1 / math.cos(_TURN / 2**halvings) ** 2 - 1)
    share = _share(cells, degrees)
    in_vain = looks > search.level * (1 + excess) * share
    cells, seen = cells[~in_vain], cells[in_vain]
    for halved in range(halvings):
        share = _share(cells, degrees)
        missed = [] if halved else [seen.numerators]
        for some in search.chunks(cells):
            missed.append(some.numerators[search.missed(some, share, excess)])
        cells = _halves(Frequencies(torch.cat(missed), cells.denominators), degrees)
        if not len(cells):
            return search.bound
    share = _share(cells, degrees)
    for some in search.chunks(cells):
        search.settle(some, share, excess)
    return search.bound


def _first_cells(degrees: tuple[int, ...], device: torch.device) -> Frequencies:
    """Centres of equal cells that cover half of the torus; a cell reaches 1 / denominator far."""
    axes = sum(degree > 0 for degree in degrees)
    sizes = tuple(max(1, round(math.pi / 2 / _TURN) * axes * degree) for degree in degrees)
    grid = half_grid(sizes, device)
    return Frequencies(2 * grid.numerators, tuple(2 * n for n in sizes))


def _halvings(symbol: GramSymbol, cells: int) -> int:
    """How often a cell may be halved, such that all of them together do not take too long."""
    axes, (groups, rows) = sum(map(bool, symbol.degrees)), symbol.kernels.shape[:2]
    each = symbol.work + groups * (4 * rows**3 + _OVERHEAD)
    fine = (n for n in _HALVINGS if cells * 2 ** (axes * n) * each <= _FINE_WORK)
    return next(fine, _COARSE)


def _halves(cells: Frequencies, degrees: tuple[int, ...]) -> Frequencies:
    """Divide each cell along every axis on which the symbol depends."""
    steps = [(-1, 1) if degree else (0,) for degree in degrees]
    moves = torch.tensor(list(itertools.product(*steps)), device=cells.numerators.device)
    numerators = (2 * cells.numerators[:, None] + moves.view(-1, len(degrees))).flatten(0, 1)
    return Frequencies(numerators, tuple(2 * n for n in cells.denominators))


def _share(cells: Frequencies, degrees: tuple[int, ...]) -> float:
    """The share of M, ``cos(delta)^2``, that the cell where M is attained has at its centre."""
    turn = sum(d * math.pi / n for d, n in zip(degrees, cells.denominators, strict=True))
    return math.cos(turn * (1 + 1e-14)) ** 2 * (1 - 1e-14)


class _Search:
    """Proofs for many matrices, of which the largest eigenvalue counts.

    Attributes:
        bound: the largest that was proved so far, over the share of M that it stands for.
        level: about the largest eigenvalue that was seen: no bound.
    """

    def __init__(self, symbol: GramSymbol) -> None:
        self.symbol, self.level = symbol, 0.0
        self.bound = symbol.kernels.new_zeros(())

    def chunks(self, at: Frequencies) -> Iterator[Frequencies]:
        """Divide frequencies into as many as are held at a time."""
        groups, rows = self.symbol.kernels.shape[:2]
        chunk = max(1, _CHUNK // max(groups * rows**2, self.symbol.kernels[0, 0, 0].numel()))
        for start in range(0, len(at), chunk):
            yield at[start : start + chunk]

    def climb(self, cells: Frequencies) -> Tensor:
        """Raise the level to the largest eigenvalue near the best of the first cells.

        Returns:
            What the largest eigenvalue of each cell is at least, up to rounding: 0 for most.
        """
        looks = self.look(cells)
        at = self._best(cells, looks)
        for _ in range(_CLIMBS):
            at = _halves(at, self.symbol.degrees)
            at = self._best(at, self.look(at))
        # a level that is a percent too low makes many proofs fail
        tops = [
            ritz(self.symbol(some).flatten(0, 1), _LAST_STEPS).max() for some in self.chunks(at)
        ]
        self.level = max(self.level, float(torch.stack(tops).max()))
        return looks

    def look(self, at: Frequencies) -> Tensor:
        """Raise the level to about the largest eigenvalue, and return what was seen of each."""
        looks = torch.cat([self._seen(some) for some in self.chunks(at)])
        self.level = max(self.level, float(looks.max()))
        return looks

    def _seen(self, at: Frequencies) -> Tensor:
        """Estimates for the matrices that are largest in Frobenius norm; 0 for the others."""
        matrices = self.symbol(at)
        sizes = torch.linalg.vector_norm(matrices.flatten(2), dim=2).amax(1)
        some = sizes.topk(min(_LOOKS, len(at))).indices
        looks = torch.zeros_like(sizes)
        looks[some] = ritz(matrices[some].flatten(0, 1)).view(len(some), -1).amax(1)
        return looks

    def _best(self, at: Frequencies, looks: Tensor) -> Frequencies:
        return at[looks.topk(min(_CLIMBERS, len(at))).indices]

    def missed(self, at: Frequencies, share: float, excess: float) -> Tensor:
        """Try the matrix of each frequency once; return for which it was in vain."""
        matrices = self.symbol(at).flatten(0, 1)
        bounds, target = frobenius(matrices), self.level * (1 + excess) * share
        self._try(matrices, bounds, target)
        high = bounds > target * (1 + _MARGIN)
        self._record(bounds[~high], share)
        return high.view(len(at), -1).any(1)

    def settle(self, at: Frequencies, share: float = 1.0, excess: float = 0.0) -> None:
        """Prove each matrix to be at most the level, which rises where it was too low.

        Those for which the proof fails are those with a larger eigenvalue: the level rises to the
        eigenvalues of a few of them, and only they are tried again.
        """
        matrices = self.symbol(at).flatten(0, 1)
        bounds, margin = frobenius(matrices), _MARGIN
        for turn in range(_ROUNDS):
            target = self.level * (1 + margin) * (1 + excess) * share
            self._try(matrices, bounds, target)
            high = (bounds > target * (1 + margin)).nonzero()[:, 0]
            if not len(high):
                break
            some = matrices[high]
            quick = excess > 0 and turn == 0  # where there is room, eigenvalues take too long
            guess = float(ritz(some, _LAST_STEPS).max()) if quick else _largest(some)
            if guess <= self.level and not quick:  # the margin did not cover the rounding
                margin *= 100
            self.level = max(self.level, guess * (1 + excess / 20))
        self._record(bounds, share)

    def _try(self, matrices: Tensor, bounds: Tensor, target: float) -> None:
        """Lower the bounds that are above a level to what is proved there."""
        which = (bounds > target).nonzero()[:, 0]
        if len(which) and matrices.shape[-1] > 1:
            some = matrices if len(which) == len(matrices) else matrices[which]
            proved = above(Lower(some), bounds.new_tensor(target)).bound
            bounds[which] = torch.fmin(bounds[which], proved)  # a failed factor gives NaN

    def _record(self, bounds: Tensor, share: float) -> None:
        if len(bounds):
            found = upward((bounds.max() + self.symbol.error) / share, 4)
            self.bound = torch.maximum(self.bound, found)


def _largest(matrices: Tensor) -> float:
    """Largest eigenvalue among some matrices, as it seems: computed, not proved."""
    if len(matrices) > _GUESSES:
        matrices = matrices[ritz(matrices).topk(_GUESSES).indices]
    return float(torch.linalg.eigvalsh(matrices).max())


def ritz(matrices: Tensor, steps: int = _STEPS) -> Tensor:
    """Estimate the largest eigenvalue of each Hermitian matrix, by a few steps of Lanczos."""
    size = matrices.shape[-1]
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(size, 1, generator=generator, dtype=torch.float64).to(matrices)
    vector = (start / torch.linalg.vector_norm(start)).expand(len(matrices), -1, -1)
    before, length = torch.zeros_like(vector), matrices.new_zeros(len(matrices), 1, 1)
    alphas, betas = [], []
    for _ in range(min(steps, size)):
        image = matrices @ vector - length * before
        alpha = (vector.mH @ image).real
        image = image - alpha * vector
        length = torch.linalg.vector_norm(image, dim=1, keepdim=True)
        alphas.append(alpha[:, 0, 0])
        betas.append(length[:, 0, 0])
        before, vector = vector, (image / length).nan_to_num()
    tridiagonal = torch.diag_embed(torch.stack(alphas, 1))
    if len(alphas) > 1:
        off = torch.stack(betas[:-1], 1)
        tridiagonal = tridiagonal + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    largest: Tensor = torch.linalg.eigvalsh(tridiagonal)[:, -1].clamp_min(0)
    return largest
