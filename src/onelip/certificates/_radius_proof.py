"""Proofs that certificates take their radii from."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from onelip.bounds import LogitBounds
from onelip.bounds.layer_product import flattened
from onelip.certificates.head_curvature.radii import HeadRadii
from onelip.chains import Shape
from onelip.forward_error import Size
from onelip.norms.rounding import UNIT, downward


class ForwardPass(NamedTuple):
    """Batch with the features, logits and predictions that the model computed.

    Attributes:
        x: inputs, ``(batch, ...)``.
        features: outputs of the first part (``RadiusProof.split``), ``(batch, ...)``.
        logits: ``(batch, classes)``.
        prediction: ``(batch,)``, the class of the largest logit.
    """

    x: Tensor
    features: Tensor
    logits: Tensor
    prediction: Tensor


class Rounding(NamedTuple):
    """Bounds of rounding errors, and features and logits that are nearer to the exact ones.

    Attributes:
        features: Euclidean distance of the features to the exact ones, one for all or ``(batch,)``.
        margins: what a margin of the prediction can lose, at the sample and at the attacked input
            together, one for all or ``(batch, classes)``.
        nearer: features and logits that these bounds speak of, if not of those that were computed.
    """

    features: Size = 0.0
    margins: Size = 0.0
    nearer: tuple[Tensor, Tensor] | None = None

    def seen(self, batch: ForwardPass) -> ForwardPass:
        """Return the batch with the features and logits that the bounds speak of."""
        if self.nearer is None:
            return batch
        features, logits = self.nearer
        return batch._replace(features=features, logits=logits)


EXACT = Rounding()


class Found(NamedTuple):
    """Radii in units of the input, and radii in feature space if there is an MLP head."""

    radius: Tensor
    head: HeadRadii | None = None


Radii = Callable[[Rounding], Found]
"""Radii of one batch, from bounds of the rounding there and on all inputs in reach."""


@dataclass(frozen=True, kw_only=True)
class RadiusProof:
    """Proved constants of a network, and the radii that follow from them.

    Attributes:
        method: name of the method; see ``Certificate``.
        pairwise: function of the number of classes, ``(classes, classes)`` float64: an upper bound
            of the Lipschitz constant of each difference of two logits.
        bound: bound of the whole network, 0-d float64.
        body_bound: bound of the part before a linear head, or ``bound``.
        layer_bounds: bounds of the layers, by name.
        head: how the pairs were bounded; see ``Certificate``.
        proof: proved constants of single logits and their pairs, where the network is a chain.
        head_parts: number of modules at the end of the flattened network that form the head;
            the radii are proved from the features before it.
    """

    method: str
    pairwise: Callable[[int], Tensor]
    bound: Tensor
    body_bound: Tensor
    layer_bounds: tuple[tuple[str, float], ...]
    head: str
    proof: LogitBounds | None = None
    head_parts: int = 0

    def split(self, model: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Split the model into the part whose outputs the radii are proved from, and the rest."""
        if not self.head_parts:
            return model, nn.Identity()
        parts = [part for _, part in flattened(model)]
        return nn.Sequential(*parts[: -self.head_parts]), nn.Sequential(*parts[-self.head_parts :])

    def radii(self, batch: ForwardPass) -> Radii:
        """Return radii of a batch: the smallest margin divided by the constant of its pair."""
        slopes = self.pairwise(batch.logits.shape[1])[batch.prediction.cpu()]
        return lambda rounding: Found(smallest_quotient(batch, slopes, rounding))


class CertificateMethod(Protocol):
    """Interface of a method that proves radii: ``HeadCurvature``, or a class of your own."""

    @property
    def name(self) -> str:
        """Name of the method, in certificates and on the command line."""

    def radius_proof(self, model: nn.Module, input_shape: Shape) -> RadiusProof:
        """Prove constants of a model on inputs of a shape (without the batch)."""


@dataclass(frozen=True)
class Proved:
    """Finished proof as a method, for the model that it was made for and no other."""

    proof: RadiusProof

    @property
    def name(self) -> str:
        """Name of the method that made the proof."""
        return self.proof.method

    def radius_proof(self, model: nn.Module, input_shape: Shape) -> RadiusProof:  # noqa: ARG002
        """Return the proof."""
        return self.proof


def smallest_quotient(
    batch: ForwardPass, slopes: Tensor, rounding: Rounding, falls: Tensor | None = None
) -> Tensor:
    r"""Least margin over slope of all rivals, rounded down; 0 if a margin is not positive.

    .. math:: \hat z_y(x') - \hat z_i(x') \ge \tilde z_y(x) - \tilde z_i(x) - m_i - L_i |x' - x| ,

    with :math:`m_i` what rounding takes from the logits :math:`\tilde z` that are known at the
    sample, and from those that are computed at the attacked input.

    Args:
        batch: the batch with its logits and predictions.
        slopes: ``(batch, classes)``, Lipschitz constants of the prediction minus each logit.
        rounding: rounding of the network, at the sample and on all inputs in reach.
        falls: bounds of how far each margin can fall in a ball, for a radius that is cut off there:
            a rival whose margin is larger does not count.
    """
    scores = rounding.seen(batch).logits.detach().double().cpu()
    own = batch.prediction.cpu()[:, None]
    margins = scores.gather(1, own) - scores
    margins = margins.clamp(max=torch.finfo(scores.dtype).max)  # a difference that overflowed
    if rounding is not EXACT:
        # Doubled for the rounding of the subtractions; a bound that is not finite leaves nothing.
        lost = torch.as_tensor(rounding.margins, dtype=torch.float64).nan_to_num(
            nan=math.inf, posinf=math.inf
        )
        margins = downward((margins - lost - 4 * UNIT * margins.abs()).clamp_min(0), 2)
    # An unknown slope counts as infinite, which gives the radius 0.
    slopes = slopes.nan_to_num(nan=math.inf, posinf=math.inf)  # 0 times an infinite distance
    quotient = downward(margins / slopes, 4)
    quotient = torch.where(margins > 0, quotient, 0.0)  # 0 / 0 in a constant network
    if falls is not None:
        quotient = torch.where(falls < margins, math.inf, quotient)
    quotient.scatter_(1, own, math.inf)  # not its own rival
    return quotient.amin(1)
