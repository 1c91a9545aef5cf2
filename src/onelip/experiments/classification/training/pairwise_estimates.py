"""Constants of logit differences while a network is trained: estimates, with gradients."""

import abc
from collections.abc import Callable

import torch
from torch import Tensor, nn

from onelip.chains import Chain, Shape
from onelip.errors import UsageError
from onelip.estimates import LipLTEstimate, NaiveEstimate
from onelip.estimates.liplt import distances
from onelip.reading import read


class PairwiseEstimate(nn.Module, abc.ABC):
    """Called with the model, gives ``(classes, classes)`` with gradients.

    The model is not kept: its parameters would be stored twice.

    Args:
        model: the network as it is at first.
        input_shape: of an image.
    """

    def __init__(self, model: nn.Module, input_shape: Shape) -> None:
        super().__init__()
        self.input_shape = input_shape
        self.begin(model)

    @abc.abstractmethod
    def begin(self, model: nn.Module) -> None:
        """Prepare what is kept from step to step."""

    @abc.abstractmethod
    def forward(self, model: nn.Module) -> Tensor:
        """The constants."""


class ChainEstimate(PairwiseEstimate, abc.ABC):
    """An estimate on the network as a chain, which is read anew at each step."""

    estimator: Callable[[Chain], nn.Module]

    def begin(self, model: nn.Module) -> None:
        """Read the network."""
        self.estimate = type(self).estimator(read(model, self.input_shape))

    def forward(self, model: nn.Module) -> Tensor:
        """See the class."""
        estimate: Tensor = self.estimate(read(model, self.input_shape))
        return estimate


class PairwiseLipLT(ChainEstimate):
    """LipLT on power iterations."""

    estimator = LipLTEstimate


class PairwiseProduct(ChainEstimate):
    """The product of norms on power iterations."""

    estimator = NaiveEstimate


class HeadDistances(PairwiseEstimate):
    """The distances of the rows of the last layer, after a body that is 1-Lipschitz."""

    def begin(self, model: nn.Module) -> None:
        """Check that there is a head.

        Raises:
            UsageError: the last module has no matrix.
        """
        if not isinstance(model, nn.Sequential) or not hasattr(model[-1], "weight"):
            raise UsageError("--constants head needs a network that ends in a linear layer")

    def forward(self, model: nn.Module) -> Tensor:
        """See the class."""
        assert isinstance(model, nn.Sequential)
        weight = model[-1].weight
        assert isinstance(weight, torch.Tensor)
        return distances(weight)


PAIRWISE_ESTIMATES: dict[str, type[PairwiseEstimate]] = {
    "liplt": PairwiseLipLT,
    "naive": PairwiseProduct,
    "head": HeadDistances,
}
"""By the name that recipes use."""
