r"""LipLT (Fazlyab et al., 2023): the Lipschitz constant of a network from its linear paths.

Loop transformation writes every block as :math:`x_{k+1} = H_k x_k + G_k \psi_k(W_k x_k)` with a
1-Lipschitz :math:`\psi_k` (``chains.transformed``). Unrolled, a linear map of :math:`x_k` is a sum
of linear paths, one from the input and one from each :math:`\psi_j`, so with constants
:math:`m_j` of :math:`x_0 \mapsto W_j x_j`

.. math:: |A x_k| \le \Big( \|A H_{k-1} \cdots H_s\| a_s
          + \sum_{j=s}^{k-1} \|A H_{k-1} \cdots H_{j+1} G_j\| m_j \Big) |x_0| .

The paper starts at s = 0. Starting at any :math:`x_s`, with a constant :math:`a_s` that is known
otherwise, is as good a proof, and s = k is the product of norms: the least of all is taken.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from onelip.bounds.block_product import of_block, single_maps
from onelip.bounds.logit_bounds import (
    LogitBounds,
    least_in_time,
    lengths,
    pair_lengths,
    raised,
    tightened,
)
from onelip.bounds.method import BoundMethod, Network, Outcome, Shared, chain_of, end_of
from onelip.bounds.products.diagonal import Weighting, weight
from onelip.bounds.products.intervals import Intervals, work_of
from onelip.bounds.products.norms import DEFAULT_WORK, LEVELS, Norms, cheapest_first
from onelip.bounds.products.scaled_maps import above, finite_above, fraction
from onelip.chains import Block, Chain, Elementwise, LinearMap, Scale, Shape, transformed
from onelip.deadline import OutOfTimeError
from onelip.estimates import LipLTEstimate
from onelip.norms.rounding import UNDERFLOW, asked_once, upward

Refinement = Literal["spectral", "aol", "sll"]
Path = list[LinearMap]


@dataclass(frozen=True)
class LipLT(BoundMethod):
    r"""LipLT: loop transformation and the triangle inequality over linear paths.

    Bound: Theorem 3.3 of the paper, for slopes in any interval, sorted groups and residual blocks,
    and never above ``Product`` with the same work. Exact for linear networks. For logits, the
    rows of the last map, or differences of rows, replace its norm in every path.
    Cost: about :math:`L^2 / 2` norms of products of L layers; those that ``work`` does not allow to
    be written out are split into shorter ones. One image of each logit's row for every path.

    Args:
        work: multiplications for all products together; more is tighter.
        refinement: what bounds :math:`G \psi(W x)` for elementwise activations: ``"spectral"`` is
            :math:`\|G\| \|W x\|`; ``"aol"`` and ``"sll"`` (Theorem 3.2) also try
            :math:`\|T^{1/2} W x\|` with a diagonal :math:`T \succeq G^\top G`, for every path but
            those of the logits' rows.
        seconds: after which no product is written out any more; with it, the time decides how tight
            the bound is.

    Example:
        >>> from torch import nn
        >>> from onelip.chains import Dense
        >>> there, back = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 1.0]])
        >>> LipLT().bound(Chain((Block(Dense(there), Elementwise.of(nn.ReLU())),), Dense(back)))
        tensor(1.0000, dtype=torch.float64)

    Reference:
        Fazlyab, Entesari, Roy, Chellappa, "Certified Robustness via Dynamic Margin Maximization and
        Improved Lipschitz Regularization", NeurIPS 2023.
    """

    work: float = DEFAULT_WORK
    refinement: Refinement = "spectral"
    seconds: float | None = None
    name: ClassVar[str] = "liplt"
    share: ClassVar[float] = 0.7
    title: ClassVar[str] = "LipLT"

    def prove(self, chain: Chain) -> Tensor:
        """Prove the smallest bound over the starting points of the paths."""
        return self.outcome(Shared(chain)).bound

    def outcome(self, shared: Shared) -> Outcome:
        """Prove the smallest bound over the starting points of the paths."""
        chain, swept = shared.chain.exact(), []
        levels = self._levels(chain)

        def proved(norms: Norms, allowed: float) -> Fraction:
            paths = _Paths(chain, norms, allowed, self.refinement)
            swept.append(len(chain.blocks) + 1 if paths.swept is None else paths.swept)
            return paths.network()

        end = time.monotonic() + end_of(self.seconds)
        bound = finite_above(cheapest_first(proved, self.work, end_of(self.seconds), levels))
        layers = len(chain.blocks) + 1
        if swept[-1] < layers:
            return Outcome(
                bound, f"products of the first {swept[-1]} of {layers} layers: more time"
            )
        return Outcome(bound, "larger products of layers" if time.monotonic() > end else "")

    def _levels(self, chain: Chain) -> Sequence[float]:
        """Return smaller budgets of work to begin with: only the least where one sweep does all."""
        swept = self.refinement == "spectral" and _sweepable(chain, self.work)
        return LEVELS[:1] if swept else LEVELS

    @torch.no_grad()
    @asked_once()
    def logit_bounds(self, network: Network, input_shape: Shape | None = None) -> LogitBounds:
        """Proved constants of the network, of each logit and of each pair, from the same paths."""
        chain = chain_of(network, input_shape).exact()

        def proved(norms: Norms, allowed: float) -> LogitBounds:
            paths = _Paths(chain, norms, allowed, self.refinement)
            network = finite_above(paths.network())
            per_class, pairwise = paths.rows(lengths), paths.rows(pair_lengths)
            return tightened(network, per_class, pairwise, paths.layers)

        return least_in_time(proved, self.work, end_of(self.seconds), self._levels(chain))

    def within(self, seconds: float) -> Self:
        """Spend all of the time."""
        return replace(self, seconds=seconds)

    def estimate(self, chain: Chain) -> nn.Module:
        """Differentiable LipLT bound on power iterations: an estimate, no proof."""
        return LipLTEstimate(chain)


class _Part(NamedTuple):
    """A block after loop transformation."""

    around: LinearMap | None
    outer: LinearMap
    inner: LinearMap


class _Paths:
    """Constants of all prefixes of a chain, from the input to its last map."""

    def __init__(self, chain: Chain, norms: Norms, work: float, refinement: Refinement) -> None:
        self.chain, self.norms, self.refinement = chain, norms, refinement
        self.parts = [_Part(*transformed(block)) for block in self.chain.blocks]
        self.share = 0.0  # of the work, for the refinement of a path
        self.body = [Fraction(1)]  # a_k, of x_0 -> x_k
        self.hidden: list[Fraction] = []  # m_k, of x_0 -> W_k x_k
        self.layers: list[Fraction] = []  # of the blocks by themselves
        self.swept: int | None = None  # layers of which all products are known, in one sweep
        if refinement == "spectral" and _sweepable(chain, work or math.inf):
            self._sweep(work)
            return
        if work > 0:
            self.norms.afford(single_maps(self.chain), work)
            products = list(self._all_products())
            self.norms.afford(products, work)
            self.share = work / len(products)
        for block, part in zip(self.chain.blocks, self.parts, strict=True):
            self._advance(block, part)

    def network(self) -> Fraction:
        """Constant of the whole network."""
        if self.swept is not None:
            return self.hidden[-1]
        return self._of([self.chain.last], len(self.parts))

    def rows(self, size: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Bound the outputs row by row; ``size`` bounds each row of a matrix with row errors."""

        def sizes(maps: Path, constant: Fraction) -> Tensor:
            factor, rows, errors = self.norms.rows(maps)
            return raised(size(rows, errors), factor * constant)

        end = [self.chain.last]
        best = sizes(end, self.body[-1])
        fed = torch.zeros_like(best)
        for j, entering, along in self._products(end, len(self.parts)):
            fed = fed + sizes(entering, self.hidden[j])
            start = fed if along is None else fed + sizes(along, self.body[j])
            # One rounding per path: the factor covers the sum, as all terms are positive.
            best = best.minimum(start * (1 + 1e-15 * (len(self.parts) + 2)))
        return best

    def _advance(self, block: Block, part: _Part) -> None:
        """Extend the constants by one block."""
        self.norms.deadline.allow()
        k, front, layer = len(self.hidden), self.body[-1], of_block(block, self.norms)
        inner = self._of([block.inner], k)
        before = self._of([part.inner], k) if part.inner is not block.inner else inner
        self.hidden.append(before)
        bound = fraction(block.nonlinearity.constant) * inner
        bound *= Fraction(1) if block.outer is None else self.norms.of([block.outer])
        if block.skip is not None:
            bound += self.norms.of([block.skip]) * front
            if part.around is not None:
                # Loop transformation: skip plus mean slope, and the remainder psi.
                turned = self.norms.of([part.around]) * front
                bound = min(bound, turned + self.norms.of([part.outer]) * before)
        self.body.append(min(bound, layer * front))
        self.layers.append(layer)

    def _of(self, end: Path, k: int, *, refined: bool = True) -> Fraction:
        """Return a Lipschitz constant of ``x_0 -> end(x_k)``."""
        best, fed = self.norms.of(end) * self.body[k], Fraction(0)
        for j, entering, along in self._products(end, k):
            fed += self._fed(entering, j, refined=refined)
            # Earlier starting points only add terms: they cannot be smaller.
            if fed >= best:
                break
            start = Fraction(0) if along is None else self.norms.of(along) * self.body[j]
            best = min(best, fed + start)
        return best

    def _sweep(self, work: float) -> None:
        """Extend the constants by all blocks, from the norms of all products of layers at once.

        Numbers are divided by the product of norms and constants until there, so that they are at
        most 1, however deep the network is.
        """
        self.norms.deadline.allow()
        blocks, maps = self.chain.blocks, _maps(self.chain)
        self.norms.afford([[linear] for linear in maps], work)
        known = Intervals(maps, self.norms) if work > 0 else None
        ratios = [] if known is None else known.ratios
        self.swept, until = len(ratios), Fraction(1)
        none, one = torch.zeros(0, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        body, hidden, enters, starts = one, none, none, none
        for k, linear in enumerate(maps):
            single = self.norms.of([linear]) if known is None else known.singles[k]
            best = body[-1:]
            if 0 < k < self.swept:
                fed = (enters * ratios[k][1:] * hidden).flip(0).cumsum(0).flip(0)
                least = (fed + starts * ratios[k][:-1] * body[:-1]).min()
                # What underflow takes is less than is added.
                best = torch.minimum(best, upward(least + UNDERFLOW, k + 8))
            hidden = torch.cat([hidden, best])
            self.hidden.append(fraction(best) * until * single)
            if k == len(blocks):
                break
            layer, middle, half, own = self._layer(blocks[k], single)
            after = torch.minimum(best, upward(own * body[-1] + UNDERFLOW, 2))
            until *= fraction(blocks[k].nonlinearity.constant) * single
            body = torch.cat([body, after])
            self.body.append(fraction(after) * until)
            self.layers.append(layer)
            enters = torch.cat([upward(enters * middle, 1), half])
            starts = torch.cat([upward(starts * middle, 1), middle])

    def _layer(self, block: Block, single: Fraction) -> tuple[Fraction, Tensor, Tensor, Tensor]:
        """Return a layer's constant; middle and half of its slopes, in relation to the largest.

        The last is the layer's constant in relation to the product of norm and slope.
        """
        layer, largest = of_block(block, self.norms), fraction(block.nonlinearity.constant)
        if not largest * single:
            zero = torch.zeros(1, dtype=torch.float64)
            return layer, zero, zero, zero + 1
        numbers = [abs(number) / largest for number in _slopes(block)]
        found = [above(number)[None] for number in (*numbers, layer / (largest * single))]
        return layer, found[0], found[1], found[2]

    def _fed(self, entering: Path, j: int, *, refined: bool) -> Fraction:
        """Bound the contribution of the paths that start at nonlinearity j."""
        plain = self.norms.of(entering) * self.hidden[j]
        elementwise = isinstance(self.chain.blocks[j].nonlinearity, Elementwise)
        if self.refinement == "spectral" or not refined or not elementwise:
            return plain
        gram = entering[-1].rows * entering[0].columns ** 2
        if gram + self.norms.cost_of_rows(entering) > self.share:
            return plain
        try:
            factor, rows, errors = self.norms.rows(entering)
        except OutOfTimeError:
            return plain
        inner = self.parts[j].inner
        weights, error = weight(rows, errors, Weighting(self.refinement == "sll", inner))
        if not torch.isfinite(error):
            return plain
        # |P psi(y)| <= |T^(1/2) y|, so the diagonal takes the place of P in the path.
        end: Path = [inner, Scale(inner.outputs, weights.unflatten(0, inner.outputs))]
        self.norms.afford(self._paths_to(end, j), self.share)
        weighted = self._of(end, j, refined=False) + fraction(error) * self.hidden[j]
        return min(plain, factor * weighted)

    def _products(self, end: Path, k: int) -> Iterator[tuple[int, Path, Path | None]]:
        """Yield the paths to ``end`` from psi_j and from x_j, for j from k - 1 down to 0.

        They end at a block without a linear path around its nonlinearity.
        """
        path = list(end)
        for j in reversed(range(k)):
            around, outer, _ = self.parts[j]
            if around is None:
                yield j, [outer, *path], None
                return
            entering, path = [outer, *path], [around, *path]
            yield j, entering, path

    def _paths_to(self, end: Path, k: int) -> Iterator[Path]:
        """Yield ``end`` and every path to it."""
        yield end
        for _, entering, along in self._products(end, k):
            yield entering
            if along is not None:
                yield along

    def _all_products(self) -> Iterator[Path]:
        """Yield every product of maps whose norm a bound asks for."""
        for k, (block, part) in enumerate(zip(self.chain.blocks, self.parts, strict=True)):
            self.norms.deadline.allow()
            yield from self._paths_to([part.inner], k)
            yield from self._paths_to([block.inner], k)
        yield from self._paths_to([self.chain.last], len(self.parts))


def _maps(chain: Chain) -> list[LinearMap]:
    """Return the linear maps of a plain chain."""
    return [*(block.inner for block in chain.blocks), chain.last]


def _sweepable(chain: Chain, work: float) -> bool:
    """Whether all paths are products of neighbouring layers, and fit into the work."""
    return all(map(_uniform, chain.blocks)) and work_of(_maps(chain)) <= work


def _uniform(block: Block) -> bool:
    """Whether a block is a layer and an activation with the same slopes everywhere."""
    kind = block.nonlinearity
    if block.outer is not None or block.skip is not None or not isinstance(kind, Elementwise):
        return False
    return kind.low.numel() == kind.high.numel() == 1


def _slopes(block: Block) -> tuple[Fraction, Fraction]:
    """Return the middle of the slopes of a uniform block, and half their width, rounded up."""
    centre, _, after = block.nonlinearity.split(block.inner.outputs)
    assert isinstance(centre, Scale)
    half = fraction(after.factor.flatten()[0]) if isinstance(after, Scale) else Fraction(1)
    return fraction(centre.factor.flatten()[0]), half
