r"""LipSDP (Fazlyab et al., 2019): the best multipliers for all layers at once.

The interior-point method solves the semidefinite programme itself, so that no solver has to be
installed. Its multipliers, optimal or not, are proved by ``multipliers.proved``.

The mode "network" of the paper couples neurons by multipliers of :math:`(e_i - e_j)(e_i - e_j)^T`.
It is refused: the inequality it is built on does not hold between neurons with different inputs,
and its results are below the exact constant of small networks.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from torch import Tensor

from onelip.bounds._eclipse import hopeful
from onelip.bounds.method import BoundMethod, Outcome, Shared
from onelip.bounds.semidefinite.layerwise import strictly, towards
from onelip.bounds.semidefinite.matrices import refuse_other_blocks
from onelip.bounds.semidefinite.multipliers import proved
from onelip.bounds.semidefinite.programmes import coordinates, optimised
from onelip.chains import Chain
from onelip.errors import NotApplicableError, UsageError

LARGEST = 2500
"""Rows of the matrix of the programme: steps cost its cube."""


@dataclass(frozen=True)
class LipSDP(BoundMethod):
    r"""LipSDP, for plain chains: one multiplier per neuron or one per layer.

    Bound: within about 1e-6, relative, of the optimum of the semidefinite programme, unless the
        time ends before; at most the product of the layers' constants.
    Cost: 15 to 40 steps of :math:`O(N^3)`, N the numbers after all layers and in the input (with
        one hidden layer: after it and in the output); see
        ``benchmarks/results/network_bounds_cpu.json``.

    Args:
        multipliers: one per entry (``"neuron"``), or one per layer, which is less tight and not
            faster here, but often reported. For sorting, one per group or one per layer, and two
            of any sign per group in both cases.
        seconds: when to stop looking for better multipliers.

    Raises:
        UsageError: ``multipliers="network"``, which proves nothing, or any other word.
        NotApplicableError: when it is asked for a bound of a chain with other blocks than plain
            layers with elementwise activations or sorting, or of a matrix of more than 2500 rows.

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
    share: ClassVar[float] = 0.7

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
        if chain.blocks and (size := coordinates(chain)) > LARGEST:
            raise NotApplicableError(
                f"LipSDP would factorise a matrix of {size} rows, more than {LARGEST}: use "
                "ECLipsE() or ECLipsE(fast=True)"
            )
        network = shared.matrices()
        if not hopeful(network):
            return Outcome(network.product)
        start, level = strictly(network)
        single = self.multipliers == "layer"
        if not single and shared.multipliers is not None:
            start, level = towards(start, level, shared.multipliers, shared.level)
        found = optimised(network, start, level, shared=single, seconds=self.seconds)
        if not single:
            shared.offer(found.multipliers, found.level)
        bound = proved(network, found.multipliers, found.level)
        if not found.seconds:
            return Outcome(bound)
        least = math.sqrt(max(0.0, 1 - found.gap))
        share = f"as little as {least:.2g} of this" if least else "less"
        return Outcome(bound, f"perhaps {share}: about {found.seconds:.0f} s more")

    def multiplications(self, chain: Chain) -> float:
        """Estimate the multiplications of the first two Newton steps."""
        if not chain.plain or not chain.blocks:
            return 0.0
        return 80.0 * float(coordinates(chain)) ** 3

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
