"""Differentiable estimates of the constants of logit differences during training."""

import abc

import torch
from torch import Tensor, nn

from onelip.bounds import bound_method
from onelip.chains import Shape
from onelip.errors import UsageError
from onelip.estimates.liplt import distances
from onelip.reading import read


class PairwiseEstimate(nn.Module, abc.ABC):
    """Map from a model to ``(classes, classes)`` constants, with gradients.

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
        """Prepare the state that is kept from step to step."""

    @abc.abstractmethod
    def forward(self, model: nn.Module) -> Tensor:
        """Return the constants."""


class ChainEstimate(PairwiseEstimate):
    """Estimate of a bound method on the network as a chain, read anew at each step.

    Args:
        model: the network as it is at first.
        input_shape: of an image.
        method: the name of the bound method.
    """

    def __init__(self, model: nn.Module, input_shape: Shape, method: str = "liplt") -> None:
        self.method = method
        super().__init__(model, input_shape)

    def begin(self, model: nn.Module) -> None:
        """Read the network."""
        self.estimate = bound_method(self.method).estimate(read(model, self.input_shape))

    def forward(self, model: nn.Module) -> Tensor:
        """Read the chain, and return its constants."""
        estimate: Tensor = self.estimate(read(model, self.input_shape))
        return estimate


class HeadDistances(PairwiseEstimate):
    """Distances between the rows of the last layer, after a body that is 1-Lipschitz."""

    def begin(self, model: nn.Module) -> None:
        """Check that there is a head.

        Raises:
            UsageError: the last module has no matrix.
        """
        if not isinstance(model, nn.Sequential) or not hasattr(model[-1], "weight"):
            raise UsageError("--constants head needs a network that ends in a linear layer")

    def forward(self, model: nn.Module) -> Tensor:
        """Return the distances between the rows."""
        assert isinstance(model, nn.Sequential)
        weight = model[-1].weight
        assert isinstance(weight, torch.Tensor)
        return distances(weight)


def pairwise_estimate(name: str, model: nn.Module, input_shape: Shape) -> PairwiseEstimate:
    """Build an estimate by name: a bound method with an estimate, or ``head``.

    Raises:
        NotApplicableError: the method has no estimate.
        UsageError: there is none of that name, or the network does not have the form that it needs.
    """
    if name == "head":
        return HeadDistances(model, input_shape)
    return ChainEstimate(model, input_shape, name)
