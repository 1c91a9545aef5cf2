r"""Proved norms of compositions of linear maps, as they occur in bounds of networks.

The basis of the smaller side is pushed through the maps, which writes the product out as a matrix,
with a bound of its rounding error. Step i has the error

.. math:: |\delta_i| \le r_i |\hat x_{i-1}| + u_i ,

as each map guarantees, and the maps after it enlarge that by no more than their norm. Beyond
some thousand rows the proof goes through the Gram matrix of the narrowest place
(``bottleneck.py``). Products that would take too long are split, :math:`\|A B\| \le \|A\| \|B\|`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from fractions import Fraction

import torch
from torch import Tensor

from onelip.bounds.products import bottleneck, costs
from onelip.bounds.products.scaled_maps import (
    Cores,
    above,
    finite_above,
    flat,
    fraction,
    permutes,
    pulled,
)
from onelip.chains import LinearMap, Reshape, Sum
from onelip.deadline import Deadline, OutOfTimeError
from onelip.errors import NotApplicableError
from onelip.norms.rounding import UNDERFLOW, gamma, upward
from onelip.norms.spectral import largest_norm

DEFAULT_WORK = 5e12
"""Multiplications that one bound may spend on products: some minutes of one core."""

LEVELS = (0.0, 1e9, 1e10, 1e11, 1e12)
"""Budgets of multiplications, one after the other where the time counts."""

Key = tuple[int, ...]

_CHUNK = 256  # vectors that are pushed at a time
_TIGHT = 1e-4  # no large Gram matrix is made to gain less than that


def norm_of(maps: Sequence[LinearMap], *, work: float = DEFAULT_WORK) -> Tensor:
    """Proved bound of the spectral norm of linear maps applied one after the other.

    Bound: never below the exact norm, never above the product of the single ones. Within about 1e-8
    of it, relative, where the product can be written out within ``work`` (1e-4 where all its sides
    are above 2048); elsewhere the least product of parts that can. More work gives no larger bound,
    up to that rounding.
    Cost: for maps that narrow to n numbers, pushing n vectors through all of them, there and back,
    and 1 to 3 products of n x n matrices.

    Args:
        maps: linear maps as ``exact()`` returns them, the first applied first.
        work: multiplications that may be spent; the norms of the single maps come on top.

    Returns:
        A 0-d float64 tensor on the CPU.

    Raises:
        NonFiniteError: the bound is beyond the largest float64 number.

    Example:
        >>> from onelip.chains import Dense
        >>> up = Dense(torch.tensor([[1.0], [0.0]]).double())
        >>> down = Dense(torch.tensor([[0.0, 1.0]]).double())
        >>> bool(norm_of([up, down]) < 1e-12)
        True
    """
    norms = Norms()
    if norms.cost(maps) <= work:
        norms.afford([maps], math.inf)
    else:
        count = len(maps)
        parts = [maps[i:k] for i in range(count) for k in range(i + 1, count + 1)]
        norms.afford(parts, work)
    return finite_above(norms.of(maps))


class Norms:
    """Proved norms of products of maps, each computed once.

    They are exact fractions above the norms, so that nothing overflows on the way to a bound. Maps
    are told apart by identity: the same layer has to come as the same object. After the deadline no
    product is written out any more: the norms of its parts are multiplied.
    """

    def __init__(self, deadline: Deadline | None = None) -> None:
        self.deadline = deadline or Deadline()
        self._pulled: dict[int, tuple[LinearMap, Fraction, LinearMap | None]] = {}
        self._singles: dict[int, Fraction] = {}
        self._known: dict[Key, Fraction] = {}
        self._affordable: set[Key] = set()

    def afford(self, products: Iterable[Sequence[LinearMap]], work: float) -> None:
        """Allow the cheapest of these products to be written out, within a budget of work."""
        prices = {}
        for maps in products:
            _, cores = self._cores(maps)
            prices[_key(cores)] = costs.cost(cores)
        for key, price in sorted(prices.items(), key=lambda item: item[1]):
            work -= price
            if not (price < math.inf and work >= 0):
                break
            self._affordable.add(key)

    def reconsider(self) -> None:
        """Forget the norms of products that were split: they may be affordable from now on."""
        self._known = {key: norm for key, norm in self._known.items() if key in self._affordable}

    def cost(self, maps: Sequence[LinearMap]) -> float:
        """Estimate the multiplications of writing the product out and proving its norm."""
        return costs.cost(self._cores(maps)[1])

    def split(self, linear: LinearMap) -> tuple[Fraction, Cores]:
        """Split a map into a number and maps with entries of about 1; a zero map stays itself."""
        number, cores = Fraction(1), list[LinearMap]()
        for part in flat([linear]):
            factor, core = self._split(part)
            number *= factor or 1
            cores += [] if core is None else [core]
        return number, tuple(cores)

    def _split(self, linear: LinearMap) -> tuple[Fraction, LinearMap | None]:
        """Pull a number out of a single map, once."""
        if id(linear) not in self._pulled:
            self._pulled[id(linear)] = (linear, *pulled(linear))  # held, so that the id stays
        _, number, core = self._pulled[id(linear)]
        return number, core

    def cost_of_rows(self, maps: Sequence[LinearMap]) -> float:
        """Estimate the multiplications of writing the rows of the product out."""
        return float(
            maps[-1].rows * sum(costs.multiplications(core) for core in self._cores(maps)[1])
        )

    def of(self, maps: Sequence[LinearMap]) -> Fraction:
        """Return a number not below the norm of the product, the first map applied first."""
        factor, cores = self._cores(maps)
        return factor * self._norm(cores) if factor else factor

    def rows(self, maps: Sequence[LinearMap]) -> tuple[Fraction, Tensor, Tensor]:
        """Return the rows of the product's matrix, up to a factor, and the error norm of each.

        Where numbers overflow, the errors are infinite.
        """
        factor, cores = self._cores(maps)
        if not cores:
            outputs = maps[-1].rows
            return factor, _basis(outputs), torch.zeros(outputs, dtype=torch.float64)
        matrix, errors = self._written_out(cores, adjoint=True)
        if not (torch.isfinite(matrix).all() and torch.isfinite(errors).all()):
            return factor, torch.zeros_like(matrix), torch.full_like(errors, math.inf)
        return factor, matrix, errors

    def _norm(self, cores: Cores) -> Fraction:
        """Return the least bound: the whole product if affordable, or any split into two parts."""
        key = _key(cores)
        if key in self._known:
            return self._known[key]
        best = self._product(cores)
        affordable = key in self._affordable
        for cut in range(1, len(cores)):
            parts = cores[:cut], cores[cut:]
            if not affordable or all(_key(part) in self._known for part in parts):
                best = min(best, self._norm(parts[0]) * self._norm(parts[1]))
        if affordable and best:
            with suppress(OutOfTimeError):
                best = min(best, self._direct(cores, best))
        self._known[key] = best
        return best

    def _direct(self, cores: Cores, best: Fraction) -> Fraction:
        """Prove the norm of the product as a whole; return ``best`` where that fails."""
        self.deadline.allow()
        size, cut = costs.narrowest(cores)
        if size <= costs.WRITTEN_OUT and cut in (0, len(cores)):
            matrix, errors = self._written_out(cores, adjoint=cut > 0)
            self.deadline.allow(2 * size**2 * max(matrix.shape))
            error = row_norms(errors[None])[0]
            if not (torch.isfinite(matrix).all() and torch.isfinite(error)):
                return best
            return Fraction(float(largest_norm(matrix[None], error)))
        # The estimate is a lower bound up to rounding: the proof could not gain more than _TIGHT.
        if float(best) <= costs.estimate(cores) * (1 + _TIGHT):
            return best
        found = self._through(cores, cut)
        return Fraction(float(found)) if torch.isfinite(found) else best

    def _through(self, cores: Cores, cut: int) -> Tensor:
        """Prove the norm from Gram matrices of the space before map ``cut``."""
        before, after = cores[:cut], cores[cut:]
        if not after:
            return bottleneck.norm(
                lambda x: self._back_and_forth(before, x), before[-1].outputs, self.deadline
            )
        if not before:
            return bottleneck.norm(
                lambda x: self._forth_and_back(after, x), after[0].inputs, self.deadline
            )
        return bottleneck.norm_through(
            lambda x: self._back_and_forth(before, x),
            lambda x: self._forth_and_back(after, x),
            after[0].inputs,
            above(self._product(before)),
            above(self._product(after)),
            deadline=self.deadline,
        )

    def _forth_and_back(self, cores: Cores, x: Tensor) -> tuple[Tensor, Tensor]:
        """Apply ``M^T M`` to a batch, with errors."""
        return self._twice(cores, x, adjoint=False)

    def _back_and_forth(self, cores: Cores, x: Tensor) -> tuple[Tensor, Tensor]:
        """Apply ``M M^T`` to a batch, with errors."""
        return self._twice(cores, x, adjoint=True)

    def _twice(self, cores: Cores, x: Tensor, *, adjoint: bool) -> tuple[Tensor, Tensor]:
        """Apply the maps and their adjoint, with the error norm of each row."""
        self.deadline.allow()
        there, error = self.pushed(cores, x, adjoint=adjoint)
        back, last = self.pushed(cores, there, adjoint=not adjoint)
        # The way back stretches the error of the first pass by the norm at most.
        return back, upward(error * above(self.known(cores)) + last, 4)

    def _written_out(self, cores: Cores, *, adjoint: bool) -> tuple[Tensor, Tensor]:
        """Return the rows of the matrix, or its columns as rows, and the error norm of each."""
        shape = cores[-1].outputs if adjoint else cores[0].inputs
        basis = _basis(math.prod(shape)).unflatten(1, shape)
        pushed = []
        for x in basis.split(_CHUNK):
            self.deadline.allow()
            pushed.append(self.pushed(cores, x, adjoint=adjoint))
        return torch.cat([x.flatten(1) for x, _ in pushed]), torch.cat([e for _, e in pushed])

    def pushed(self, maps: Cores, x: Tensor, *, adjoint: bool) -> tuple[Tensor, Tensor]:
        """Return the image of a batch under the maps or their adjoint, and each row's error."""
        error = torch.zeros(len(x), dtype=torch.float64)
        for i in reversed(range(len(maps))) if adjoint else range(len(maps)):
            x, new = self._step(maps[i], x, adjoint=adjoint)
            ahead = maps[:i] if adjoint else maps[i + 1 :]
            error = upward(error + new * above(self.known(ahead)), 2)
        return x, error

    def _step(self, linear: LinearMap, x: Tensor, *, adjoint: bool) -> tuple[Tensor, Tensor]:
        """Apply one map, and bound the error that it adds."""
        if not isinstance(linear, Sum):
            new = linear.rounding * row_norms(x) + linear.underflow
            return linear.adjoint(x) if adjoint else linear(x), upward(new, 2)
        images = [self.pushed(flat([part]), x, adjoint=adjoint) for part in linear.maps]
        total, error = images[0]
        size = row_norms(total)
        for image, new in images[1:]:
            total, error, size = total + image, error + new, size + row_norms(image)
        return total, upward(error + gamma(len(images)) * size, 2 * len(images) + 2)

    def known(self, maps: Sequence[LinearMap]) -> Fraction:
        """Return a bound of the norm that takes no new products."""
        key = _key(maps)
        if key in self._known:  # cores already
            return self._known[key]
        factor, cores = self._cores(maps)
        key = _key(cores)
        return factor * (self._known[key] if key in self._known else self._product(cores))

    def _product(self, cores: Cores) -> Fraction:
        """Multiply the norms of the single maps."""
        return math.prod((self._single(core) for core in cores), start=Fraction(1))

    def _single(self, core: LinearMap) -> Fraction:
        """Return the norm of a single map, proved once; of a sum, the sum of the norms."""
        if id(core) not in self._singles:
            norm = core.norm()
            if norm is not None:
                self._singles[id(core)] = fraction(norm)
            elif isinstance(core, Sum):
                self._singles[id(core)] = sum((self.of([m]) for m in core.maps), Fraction(0))
            else:
                raise NotApplicableError(f"{type(core).__name__} has no norm(): write one")
        return self._singles[id(core)]

    def _cores(self, maps: Sequence[LinearMap]) -> tuple[Fraction, Cores]:
        """Pull numbers out, and drop the permutations at the ends, which keep the norm."""
        factor = Fraction(1)
        cores: list[LinearMap] = []
        for linear in flat(maps):
            number, core = self._split(linear)
            factor *= number
            if core is not None and (cores or not permutes(core)):
                cores.append(core)
        while cores and isinstance(cores[-1], Reshape):
            cores.pop()
        return factor, tuple(cores)


def cheapest_first(
    proved: Callable[[Norms, float], Fraction],
    work: float,
    seconds: float,
    levels: Sequence[float] = LEVELS,
) -> Fraction:
    """Return the smallest bound over growing budgets of work, as far as the time goes.

    Args:
        proved: returns a bound, from norms and the multiplications allowed for products.
        work: the largest budget of multiplications.
        seconds: the time; infinite to take the largest budget at once.
        levels: the smaller budgets.

    Raises:
        NotApplicableError: the time is over before the first bound.
    """
    deadline = Deadline(seconds)
    norms = Norms(deadline)
    levels = [] if math.isinf(seconds) else [level for level in levels if level < work]
    found: list[Fraction] = []
    for level in (*levels, work):
        norms.reconsider()
        try:
            found.append(proved(norms, level))
        except OutOfTimeError:
            break
        if deadline.passed:
            break
    if not found:
        raise NotApplicableError(f"does not end in {seconds:.3g} s: give more --seconds")
    return min(found)


def row_norms(x: Tensor) -> Tensor:
    """Bound the Euclidean norms of the rows of a batch."""
    rows = x.flatten(1)
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return upward(norms, rows.shape[1] + 4) + math.sqrt(rows.shape[1] * UNDERFLOW)


def _key(maps: Sequence[LinearMap]) -> Key:
    """Identify maps by their identities."""
    return tuple([id(linear) for linear in maps])


def _basis(size: int) -> Tensor:
    """Identity matrix in float64."""
    return torch.eye(size, dtype=torch.float64)
