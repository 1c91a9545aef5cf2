"""Where a certificate takes its radii from: proofs only."""

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
from onelip.norms.rounding import UNIT, downward


class Rounding(NamedTuple):
    """How far what was computed may be from the exact values, in Euclidean norm.

    Of the features in front of the head, and of the logits; both for every input in reach.
    """

    features: float = 0.0
    logits: float = 0.0


EXACT = Rounding()


class ForwardPass(NamedTuple):
    """A batch, and what the model computed of it.

    Attributes:
        x: inputs, ``(batch, ...)``.
        features: outputs of the first part (``RadiusProof.split``), ``(batch, ...)``.
        logits: ``(batch, classes)``.
        prediction: ``(batch,)``.
    """

    x: Tensor
    features: Tensor
    logits: Tensor
    prediction: Tensor


class Found(NamedTuple):
    """Radii in units of the input, and what was found in front of an MLP head."""

    radius: Tensor
    head: HeadRadii | None = None


Radii = Callable[[Rounding], Found]
"""Radii of one batch, from what rounding does there and wherever an attack may lead."""


@dataclass(frozen=True, kw_only=True)
class RadiusProof:
    """Proved constants of a network, and the radii that follow from them.

    Attributes:
        method: what proved them; see ``Certificate``.
        pairwise: function of the number of classes, ``(classes, classes)`` float64: an upper bound
            of the Lipschitz constant of each difference of two logits.
        bound: of the whole network, 0-d float64.
        body_bound: of the part in front of a linear head, or ``bound``.
        layer_bounds: of the layers, by name.
        head: how the pairs were bounded; see ``Certificate``.
        proof: what was proved of single logits and their pairs, where the network is a chain.
        head_parts: how many modules at the end of the flattened network the radii are proved in
            front of.
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
        """The part whose outputs the radii are proved from, and the part after it."""
        if not self.head_parts:
            return model, nn.Identity()
        parts = [part for _, part in flattened(model)]
        return nn.Sequential(*parts[: -self.head_parts]), nn.Sequential(*parts[-self.head_parts :])

    def radii(self, batch: ForwardPass) -> Radii:
        """Radii of a batch: the smallest margin, divided by the constant of its pair."""
        slopes = self.pairwise(batch.logits.shape[1])[batch.prediction.cpu()]
        return lambda rounding: Found(smallest_quotient(batch, slopes, rounding))


class CertificateMethod(Protocol):
    """Anything that proves radii: ``HeadCurvature``, or a class of your own."""

    @property
    def name(self) -> str:
        """The word by which it is called."""

    def radius_proof(self, model: nn.Module, input_shape: Shape) -> RadiusProof:
        """Prove constants of a model on inputs of a shape (without the batch)."""


@dataclass(frozen=True)
class Proved:
    """A proof that was made before, for the model that it was made of and no other."""

    proof: RadiusProof

    @property
    def name(self) -> str:
        """The name of the method that made it."""
        return self.proof.method

    def radius_proof(self, model: nn.Module, input_shape: Shape) -> RadiusProof:  # noqa: ARG002
        """The proof."""
        return self.proof


def smallest_quotient(batch: ForwardPass, slopes: Tensor, rounding: Rounding) -> Tensor:
    r"""The least margin over slope of all rivals, rounded down; 0 where one margin is not positive.

    With e the error of the logits, :math:`\hat z_y(x') - \hat z_i(x') \ge \hat z_y(x) - \hat z_i(x)
    - 2 \sqrt 2 e - L_i |x' - x|`, once :math:`\sqrt 2 e` at the sample and once at the attacked
    input.

    Args:
        batch: what the model computed.
        slopes: ``(batch, classes)``, Lipschitz constants of the prediction minus each logit.
        rounding: of the network, at the sample and wherever an attack may lead.
    """
    scores = batch.logits.detach().double().cpu()
    own = batch.prediction.cpu()[:, None]
    margins = scores.gather(1, own) - scores
    margins = margins.clamp(max=torch.finfo(scores.dtype).max)  # a difference that overflowed
    lost = 2 * math.sqrt(2) * rounding.logits * (1 + 4 * UNIT)  # a difference, here and there
    margins = downward((margins - lost).clamp_min(0), 1) if lost else margins
    slopes = slopes.nan_to_num(nan=math.inf, posinf=math.inf)  # 0 times an infinite distance
    quotient = downward(margins / slopes, 4)
    quotient = torch.where(margins > 0, quotient, 0.0)  # 0 / 0 in a constant network
    quotient.scatter_(1, own, math.inf)  # not its own rival
    return quotient.amin(1)
