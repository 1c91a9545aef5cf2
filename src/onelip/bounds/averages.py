"""Networks whose mean a model is: its constants are at most the mean of theirs."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from onelip.bounds.layer_product import flattened, is_head, without_accumulation
from onelip.bounds.logit_bounds import LogitBounds
from onelip.layers.averaged import Averaged, mean_of
from onelip.lipschitz import refuse_hidden_behaviour
from onelip.norms.rounding import upward


class Mean(NamedTuple):
    """A model as the mean of networks over transforms.

    Attributes:
        networks: from a transformed input to outputs, head included.
        factor: mean of the constants of the transforms, 0-d float64.
    """

    networks: tuple[nn.Module, ...]
    factor: Tensor

    @classmethod
    def of(cls, model: nn.Module) -> "Mean | None":
        """The mean that a model is, linear maps after it included; None for any other model."""
        (_, first), *rest = flattened(model) or [("", model)]
        after = [without_accumulation(part) for _, part in rest]
        if type(first) is not Averaged or not all(map(is_head, after)):
            return None
        refuse_hidden_behaviour(model)
        networks = [
            nn.Sequential(network, *after) if after else network for network in first.networks
        ]
        return cls(tuple(networks), first.factor())

    def constant(self, constants: Sequence[Tensor]) -> Tensor:
        """Bound a constant of the mean by those of the networks, or many at once."""
        return upward(self.factor * mean_of(list(constants)), 1)

    def logit_bounds(self, found: Sequence[LogitBounds]) -> LogitBounds:
        """Constants of the logits of the mean; layers are those of all networks."""
        network, per_class, pairwise, layers = zip(*found, strict=True)
        return LogitBounds(
            self.constant(network),
            self.constant(per_class),
            self.constant(pairwise),
            tuple(bound for bounds in layers for bound in bounds),
        )
