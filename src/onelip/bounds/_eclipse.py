r"""ECLipsE (Xu and Sivaranjani, 2024): multipliers chosen layer by layer, first to last.

After layer k the method knows a matrix with :math:`x_k^T X_k x_k \le |x_0|^2` for all differences
:math:`x_k` that a difference :math:`x_0` of inputs can cause. A layer's multipliers turn
:math:`X_k` into :math:`X_{k+1}`; the constant is the root of the largest eigenvalue of
:math:`W_L X_L^{-1} W_L^T`. Each step is a problem of the size of one layer, so depth costs no more
than time.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from onelip.bounds.method import BoundMethod, Outcome, Shared, end_of, widths
from onelip.bounds.semidefinite.closed_forms import balanced, in_closed_form
from onelip.bounds.semidefinite.forms import Multipliers, scaled
from onelip.bounds.semidefinite.layerwise import forward, strictly
from onelip.bounds.semidefinite.matrices import (
    Groups,
    Matrices,
    Slopes,
    refuse_other_blocks,
)
from onelip.bounds.semidefinite.multipliers import proved
from onelip.bounds.semidefinite.programmes import coordinates, optimised
from onelip.chains import Chain
from onelip.errors import NotApplicableError

STEPS = 20
"""Steps that a search takes, about."""

OF_A_STEP = 40.0
"""Multiplications of one, about, in units of the cube of the rows of its matrix."""

LARGEST = 2500
"""Rows of the matrix of the programme of one layer: steps cost its cube."""


@dataclass(frozen=True)
class ECLipsE(BoundMethod):
    r"""ECLipsE, for plain chains: LipSDP split into one small problem per layer.

    One weight per entry. The weights of a layer minimise the largest eigenvalue after the next
    layer, by an interior-point method. With one hidden layer this is LipSDP.

    ``fast`` takes weights in closed form. As published it is one weight per layer: for slopes in
    :math:`[a, b]` it is :math:`1 / (h (|m| + h) \lambda_{max}(W X^{-1} W^T))` with
    :math:`h = (b - a) / 2` and :math:`m = (a + b) / 2`, which is never worse than the product of
    norms. Larger weights, one per entry, are tried beside them (``semidefinite/closed_forms.py``).
    For sorting, the means of the groups pass unchanged; the weight of the remainder is the best of
    a few candidates.

    Bound: at most that of ``fast``, which is at most ECLipsE-Fast as published, up to 1e-8, and at
        most the product of the layers' constants.
    Cost: for ``fast``, some ten factorisations and products per layer, so the cube of the widths;
        otherwise 15 to 30 steps per layer, each some products of matrices as large as the
        layer and the next together: the cube of both.

    Args:
        fast: whether to use the closed form, ECLipsE-Fast.
        seconds: after that time the layers that are left take the weights of ``fast``.

    Raises:
        NotApplicableError: when it is asked for a bound of a chain with other blocks than plain
            layers with elementwise activations or sorting, with a layer of more than 4096 numbers,
            or, unless ``fast``, with two neighbouring layers of more than 2500.

    Example:
        >>> from torch import nn
        >>> from onelip.chains import Block, Dense, Elementwise
        >>> weights = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 1.0]])  # |x|
        >>> block = Block(Dense(weights[0]), Elementwise.of(nn.ReLU()))
        >>> ECLipsE(fast=True).bound(Chain((block,), Dense(weights[1]))).round(decimals=3)
        tensor(1., dtype=torch.float64)

    Reference: Xu and Sivaranjani, "ECLipsE: efficient compositional Lipschitz constant estimation
    for deep neural networks" (2024).
    """

    fast: bool = False
    seconds: float | None = None
    share: ClassVar[float] = 0.2

    @property
    def name(self) -> str:
        """Name in ``METHODS``: ``"eclipse"`` or ``"eclipse-fast"``."""
        return "eclipse-fast" if self.fast else "eclipse"

    @property
    def title(self) -> str:
        """Name as the paper prints it."""
        return "ECLipsE-Fast" if self.fast else "ECLipsE"

    def prove(self, chain: Chain) -> Tensor:
        """Prove a bound of a plain chain from its layerwise multipliers."""
        return self.outcome(Shared(chain)).bound

    def outcome(self, shared: Shared) -> Outcome:
        """Prove a bound from layerwise multipliers; leave them to the methods that follow."""
        until = time.monotonic() + end_of(self.seconds)
        if not self.fast:
            refuse_other_blocks(shared.chain)
            _refuse_large(shared.chain)
        network = shared.matrices()
        if not hopeful(network):
            return Outcome(network.product)
        if self.fast or shared.multipliers is None:
            shared.offer(*in_closed_form(network))
        search = _Search(until, len(network.kinds))
        if not self.fast and time.monotonic() < until:
            shared.offer(*forward(network, search.best))
        if shared.multipliers is None:  # equal rows of a sorted group, or nothing that arrives
            return Outcome(network.product)
        found = proved(network, shared.multipliers, shared.level)
        if not search.left:
            return Outcome(found)
        left = f"{search.left} of {len(network.kinds)} layers took less than their best weights"
        return Outcome(found, f"{left}: about {search.more:.0f} s more for them")

    def multiplications(self, chain: Chain) -> float:
        """Estimate the multiplications of the closed form, or of the searches of all layers.

        A part of the searches gains nothing over the closed form.
        """
        if self.fast or not chain.plain:
            return cubes(chain)
        return STEPS * OF_A_STEP * float(sum(size**3 for size in _sizes(chain)))

    def within(self, seconds: float) -> Self:
        """Spend all of the time; ``fast`` has no time limit."""
        return self if self.fast else replace(self, seconds=seconds)


def cubes(chain: Chain) -> float:
    """Estimate the multiplications of factoring one matrix per layer, a few times over."""
    return 40.0 * sum(width**3 for width in widths(chain))


class _Search:
    """Weights of one layer after the other, each with its share of the time."""

    def __init__(self, until: float, layers: int) -> None:
        self.until, self.layers = until, layers
        self.left = 0  # layers whose search did not end
        self.more = 0.0  # seconds that they would have taken longer
        self._longest = 0.0

    def best(self, kind: Slopes | Groups, weight: Tensor, after: Tensor) -> Multipliers:
        """Return the best weights of a layer that its share of the time allows to find."""
        start = time.monotonic()
        seconds = (self.until - start) / self.layers
        self.layers -= 1
        if seconds <= 0:
            self.left, self.more = self.left + 1, self.more + self._longest
            return balanced(kind, weight, after)
        layer = _single(kind, weight, after)
        # Scaled to hold at level 1, as the recursion of ``forward`` expects.
        found = optimised(layer, *strictly(layer), seconds=seconds)
        self.left += found.seconds > 0
        self.more += found.seconds
        self._longest = max(self._longest, time.monotonic() - start + found.seconds)
        return scaled(found.multipliers[0], 1 / found.level)


def hopeful(network: Matrices) -> bool:
    """Whether the product of the constants can be improved: positive, finite, some nonlinearity."""
    return bool(network.kinds) and 0 < float(network.product) < math.inf


def _single(kind: Slopes | Groups, weight: Tensor, after: Tensor) -> Matrices:
    """Return one layer and the matrix after it as a network of their own."""
    # The search reads weights and kinds only: errors and norms are placeholders.
    unknown = [torch.ones((), dtype=torch.float64)] * 2
    return Matrices([weight, after], unknown, unknown, unknown, [kind], unknown)


def _sizes(chain: Chain) -> list[int]:
    """Rows of the programme of each layer."""
    lasts = [*(block.inner for block in chain.blocks[1:]), chain.last]
    pairs = zip(chain.blocks, lasts, strict=False)
    return [coordinates(Chain((block,), last)) for block, last in pairs]


def _refuse_large(chain: Chain) -> None:
    """Refuse chains with a layer whose programme is too large to factorise."""
    largest = max(_sizes(chain), default=0)
    if largest > LARGEST:
        raise NotApplicableError(
            f"ECLipsE would factorise matrices of {largest} rows, more than {LARGEST}: use "
            "ECLipsE(fast=True)"
        )
