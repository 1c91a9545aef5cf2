r"""LipSDP (Fazlyab et al., 2019): the best multipliers for all layers at once.

The interior-point method solves the semidefinite programme itself, so that no solver has to be
installed; where its matrix is too large for the time, ``descent.py`` goes by gradients. What either
finds, optimal or not, is proved by ``multipliers.proved``.

The mode "network" of the paper couples neurons by multipliers of :math:`(e_i - e_j)(e_i - e_j)^T`.
It is refused: the inequality it is built on does not hold between neurons with different inputs,
and its results are below the exact constant of small networks.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor

from onelip.bounds._eclipse import OF_A_STEP, STEPS, cubes, hopeful
from onelip.bounds.method import BoundMethod, Outcome, Shared
from onelip.bounds.semidefinite.closed_forms import in_closed_form
from onelip.bounds.semidefinite.descent import descended
from onelip.bounds.semidefinite.layerwise import strictly, towards
from onelip.bounds.semidefinite.matrices import refuse_other_blocks
from onelip.bounds.semidefinite.multipliers import proved
from onelip.bounds.semidefinite.programmes import Optimum, coordinates, optimised
from onelip.chains import Chain, Elementwise
from onelip.deadline import measured_rate
from onelip.errors import NotApplicableError, UsageError

_TELLS = 0.3  # a smaller share of the bound says nothing about what the search may still find
_SEARCH = 0.9  # of the time; the rest is for the proof

LARGEST = 2500
"""Rows of the matrix of the programme: steps cost its cube."""


@dataclass(frozen=True)
class LipSDP(BoundMethod):
    r"""LipSDP, for plain chains: one multiplier per neuron or one per layer.

    Bound: within about 1e-6, relative, of the optimum of the semidefinite programme, 1e-2 where it
        is found by gradients, unless the time ends before; at most the product of the layers'
        constants.
    Cost: 15 to 40 steps of :math:`O(N^3)`, N the numbers after all layers and in the input (with
        one hidden layer: after it and in the output); see
        ``benchmarks/results/network_bounds_cpu.json``. Where N is above 2500, or that is expected
        to take more than ``seconds``, some 200 gradients for one weight per entry of elementwise
        activations, each some ten factorisations per layer.

    Args:
        multipliers: one per entry (``"neuron"``), or one per layer, which is less tight and not
            faster here, but often reported. For sorting, one per group or one per layer, and two
            of any sign per group in both cases.
        seconds: when to stop looking for better multipliers.

    Raises:
        UsageError: ``multipliers="network"``, which proves nothing, or any other word.
        NotApplicableError: when it is asked for a bound of a chain with other blocks than plain
            layers with elementwise activations or sorting; of a matrix of more than 2500 rows for
            sorting or with one weight per layer.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from onelip.chains import Block, Dense, Elementwise
        >>> weights = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 1.0]])  # |x|
        >>> block = Block(Dense(weights[0]), Elementwise.of(nn.ReLU()))
        >>> LipSDP().bound(Chain((block,), Dense(weights[1])))
        tensor(1.0000, dtype=torch.float64)

    Reference: Fazlyab et al., "Efficient and accurate estimation of Lipschitz constants for deep
    neural networks" (2019); for sorting Pauli, Havens, Araujo et al., "Novel quadratic constraints
    for extending LipSDP beyond slope-restricted activations" (2024).
    """

    multipliers: Literal["neuron", "layer"] = "neuron"
    seconds: float | None = None
    share: ClassVar[float] = 0.6

    def __post_init__(self) -> None:
        _check_mode(self.multipliers)

    @property
    def name(self) -> str:
        """Name in ``METHODS``: ``"lipsdp"`` or ``"lipsdp-layer"``."""
        return "lipsdp" if self.multipliers == "neuron" else "lipsdp-layer"

    @property
    def title(self) -> str:
        """Name as the paper prints it."""
        return "LipSDP-Neuron" if self.multipliers == "neuron" else "LipSDP-Layer"

    def prove(self, chain: Chain) -> Tensor:
        """Prove a bound of a plain chain from the optimised multipliers."""
        return self.outcome(Shared(chain)).bound

    def outcome(self, shared: Shared) -> Outcome:
        """Prove a bound from optimised multipliers, beginning with those that are known."""
        chain = shared.chain
        refuse_other_blocks(chain)
        size, by_gradients = coordinates(chain) if chain.blocks else 0, self._by_gradients(chain)
        if size > LARGEST and not by_gradients:
            raise NotApplicableError(
                f"LipSDP would factorise a matrix of {size} rows, more than {LARGEST}: use "
                "ECLipsE() or ECLipsE(fast=True)"
            )
        network = shared.matrices()
        if not hopeful(network):
            return Outcome(network.product)
        if by_gradients and (size > LARGEST or self._too_slow(size)):
            if shared.multipliers is None:
                shared.offer(*in_closed_form(network))
            if shared.multipliers is None:
                return Outcome(network.product)
            seconds = None if self.seconds is None else _SEARCH * self.seconds
            found = descended(network, shared.multipliers, shared.level, seconds=seconds)
            return self._proved(shared, found)
        start, level = strictly(network)
        single = self.multipliers == "layer"
        if not single and shared.multipliers is not None:
            start, level = towards(start, level, shared.multipliers, shared.level)
        found = optimised(network, start, level, shared=single, seconds=self.seconds)
        return self._proved(shared, found)

    def _by_gradients(self, chain: Chain) -> bool:
        """Whether multipliers may be found by gradients."""
        elementwise = all(isinstance(block.nonlinearity, Elementwise) for block in chain.blocks)
        return self.multipliers == "neuron" and elementwise

    def _too_slow(self, size: int) -> bool:
        """Whether the interior-point method is expected not to end in time."""
        steps = STEPS * OF_A_STEP * float(size) ** 3
        return self.seconds is not None and steps > self.seconds * measured_rate(size)

    def _proved(self, shared: Shared, found: Optimum) -> Outcome:
        """Prove what a search found."""
        network = shared.matrices()
        if self.multipliers == "neuron":
            shared.offer(found.multipliers, found.level)
        bound = proved(network, found.multipliers, found.level)
        if not found.seconds:
            return Outcome(bound)
        least = math.sqrt(max(0.0, 1 - found.gap))
        share = f"as little as {least:.2g} of this" if least > _TELLS else "less"
        return Outcome(bound, f"perhaps {share}: about {found.seconds:.0f} s more")

    def multiplications(self, chain: Chain) -> float:
        """Estimate the multiplications of the first two steps."""
        if not chain.plain or not chain.blocks:
            return 0.0
        if self._by_gradients(chain):
            return cubes(chain)
        return 2 * OF_A_STEP * float(coordinates(chain)) ** 3

    def within(self, seconds: float) -> Self:
        """Spend all of the time."""
        return replace(self, seconds=seconds)


def _check_mode(multipliers: str) -> None:
    """Refuse the mode "network", whose inequality is false, and unknown modes."""
    if multipliers == "network":
        raise UsageError(
            "LipSDP-Network proves nothing: its coupled inequality is false, and its results are "
            "below the constant of small networks; use multipliers='neuron'"
        )
    if multipliers not in ("neuron", "layer"):
        raise UsageError(f"multipliers must be 'neuron' or 'layer', got {multipliers!r}")
