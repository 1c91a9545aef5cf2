"""Objectives of a training step: losses of logits, of radii, or of features."""

import abc

from torch import Tensor, nn
from torch.nn import functional as F

from onelip.activations import second_derivatives
from onelip.autocast import no_autocast
from onelip.chains import Shape
from onelip.errors import UsageError
from onelip.estimates.curvature import CurvatureEstimate
from onelip.experiments.classification.training.pairwise_estimates import (
    PairwiseEstimate,
    pairwise_estimate,
)
from onelip.layers import MLPHead
from onelip.losses import HeadLoss, RadiusLoss


class Objective(nn.Module, abc.ABC):
    """Objective of a training step; it keeps estimates, and not the model."""

    @abc.abstractmethod
    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """Return the loss of a batch."""


class OnLogits(Objective):
    """Objective of a loss of logits."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:  # noqa: ARG002
        """Return the loss of the logits."""
        loss: Tensor = self.loss(model(images).float(), labels)
        return loss


class OnRadii(Objective):
    """Objective of a loss on radii: it gets estimates of the network's current constants."""

    def __init__(self, loss: RadiusLoss, constants: PairwiseEstimate) -> None:
        super().__init__()
        self.loss, self.constants = loss, constants

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:
        """Return the loss; plain cross-entropy before the loss's first epoch."""
        logits = model(images).float()
        if epoch < self.loss.start_epoch:
            return F.cross_entropy(logits, labels)
        with no_autocast(logits.device.type):
            loss: Tensor = self.loss(logits, labels, self.constants(model))
        return loss


class OnHead(Objective):
    """Objective of a loss of the features before the last module, which runs in full precision."""

    def __init__(self, loss: HeadLoss, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, nn.Sequential):
            raise UsageError("this loss needs a network that is a Sequential: its head is the last")
        head, self.loss, self.estimate = model[-1], loss, None
        if isinstance(head, MLPHead):
            self.estimate = CurvatureEstimate(
                head.inner.in_features,
                head.outer.out_features,
                second_derivatives(head.activation),
            )

    def forward(self, model: nn.Module, images: Tensor, labels: Tensor, epoch: int) -> Tensor:  # noqa: ARG002
        """Return the loss of the features."""
        assert isinstance(model, nn.Sequential)
        *body, head = model
        features = images
        for part in body:
            features = part(features)
        estimate = self.estimate

        def curvature(first: Tensor, second: Tensor) -> Tensor:
            assert isinstance(head, MLPHead)
            assert estimate is not None
            bends: Tensor = estimate(head.inner.weight, head.outer.weight, first, second)
            return bends

        with no_autocast(features.device.type):
            loss: Tensor = self.loss(
                features.float(), labels, head, None if estimate is None else curvature
            )
        return loss


def objective(
    loss: nn.Module, model: nn.Module, input_shape: Shape, constants: str = "liplt"
) -> Objective:
    """Build the objective that a loss needs.

    Args:
        loss: one of ``onelip.losses.LOSSES``.
        model: the network as it is at first.
        input_shape: of an image.
        constants: the name of a bound method with an estimate, or ``"head"``.

    Raises:
        UsageError: the network does not have the form that the loss or the constants need.
    """
    if isinstance(loss, RadiusLoss):
        return OnRadii(loss, pairwise_estimate(constants, model, input_shape))
    if isinstance(loss, HeadLoss):
        return OnHead(loss, model)
    return OnLogits(loss)
