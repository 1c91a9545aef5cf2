"""Largest norm over all patterns of slopes: the constant itself for many small networks."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from onelip.bounds._eclipse import hopeful
from onelip.bounds.method import BoundMethod, Outcome, Shared, end_of
from onelip.bounds.patterns import largest_pattern
from onelip.bounds.semidefinite.matrices import Slopes, refuse_other_blocks
from onelip.chains import Chain
from onelip.deadline import Deadline
from onelip.errors import NotApplicableError

LARGEST = 64
"""Entries of all hidden layers together: the search may take two nodes for each pattern."""


@dataclass(frozen=True)
class Exact(BoundMethod):
    r"""Branch and bound over the patterns of slopes of a small plain chain of dense layers.

    Bound: within 1e-7 of the largest norm of :math:`W_L D \cdots D W_0`, each D with every slope
        at one end of its interval, if the search ends. That is the Lipschitz constant of a
        piecewise linear network if that pattern occurs in an open set, as every pattern does of
        one hidden layer with linearly independent rows. Where it does not occur, for biases or for
        dependent rows forbid it, and for smooth activations, it is a bound. When the time is over,
        the largest bound of an open node: at most the product of the layers' constants.
    Cost: two nodes a pattern at most, usually a small share: 1 ms a node with three hidden layers.

    Args:
        seconds: when to stop splitting nodes; None for never.

    Raises:
        NotApplicableError: when it is asked for a bound of a chain with other blocks than plain
            dense layers with elementwise activations, or with more than 64 hidden entries.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from onelip.chains import Block, Dense, Elementwise
        >>> weights = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 1.0]])  # |x|
        >>> block = Block(Dense(weights[0]), Elementwise.of(nn.ReLU()))
        >>> Exact().bound(Chain((block,), Dense(weights[1])))
        tensor(1.0000, dtype=torch.float64)

    Reference: the norms of all activation patterns as in Jordan and Dimakis, "Exactly computing the
    local Lipschitz constant of ReLU networks" (2020); bounds of nodes by Theorem 3.3 of Fazlyab,
    Entesari, Roy, Chellappa (2023).
    """

    seconds: float | None = 60.0
    name: ClassVar[str] = "exact"
    share: ClassVar[float] = 0.3

    def prove(self, chain: Chain) -> Tensor:
        """Prove the largest norm over all patterns, as closely as the time allows."""
        return self.outcome(Shared(chain)).bound

    def outcome(self, shared: Shared) -> Outcome:
        """Prove the largest norm over all patterns, as closely as the time allows."""
        refuse_other_blocks(shared.chain)
        entries = sum(block.inner.rows for block in shared.chain.blocks)
        if entries > LARGEST:
            raise NotApplicableError(
                f"{entries} hidden entries are more than the {LARGEST} whose patterns can be "
                "searched: use LipSDP()"
            )
        network = shared.matrices()
        kinds = [kind for kind in network.kinds if isinstance(kind, Slopes)]
        if len(kinds) < len(network.kinds):
            raise NotApplicableError(
                "patterns of slopes are searched for elementwise activations: use LipSDP()"
            )
        if not hopeful(network):
            return Outcome(network.product)
        found = largest_pattern(network, kinds, Deadline(end_of(self.seconds)))
        bound = network.product.minimum(network.unscaled(found.bound))
        if not found.left:
            return Outcome(bound)
        least = found.reached / float(found.bound)
        return Outcome(bound, f"not less than {least:.4g} of this: {found.left} nodes are open")

    def within(self, seconds: float) -> Self:
        """Spend all of the time."""
        return replace(self, seconds=seconds)
