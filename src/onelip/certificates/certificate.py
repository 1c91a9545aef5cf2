"""Certificate of a batch: radii, and the bounds and assumptions that they rest on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.certificates.head_curvature.radii import HeadRadii
from onelip.errors import UsageError


@dataclass(frozen=True)
class Certificate:
    """Certified radii of a batch and everything that they rest on.

    Attributes:
        prediction: ``(batch,)`` int64, the predicted classes.
        radius: ``(batch,)`` float64. No input closer than this, in l2 and in the units of the
            model's input, gets another prediction. 0 for a tie, for logits that are not finite,
            and, where labels were given, for a wrong prediction.
        bound: 0-d float64, the proved Lipschitz bound of the whole model.
        body_bound: 0-d float64, the bound of the part before a linear or MLP head, or ``bound``.
        layer_bounds: the factors of ``bound``, by layer.
        method: the name of the method: ``"product"`` of the layers' bounds, ``"liplt"``, another of
            ``onelip.certificates.METHODS``, or ``"best: lipsdp"``, with the method that gave the
            bound.
        head: ``"pairwise"`` (a constant for each pair of logits: body_bound |w_y - w_i|, that of
            LipLT or of ``local``, elsewhere the least of sqrt(2) bound and the product's),
            ``"general"`` (margin / sqrt(2) bound) or ``"mlp"`` (one hidden layer).
        level: ``"real"``: the proof is in exact arithmetic, for the weights as stored and the
            logits as computed; the rounding of the forward pass is not part of it. ``"float"``: it
            holds for what the network computes, rounding included, in this dtype.
        dtype: dtype of the logits, computed with autocast and TF32 off.
        device: device on which the logits were computed.
        head_radii: radii of a curvature certificate in the feature space before an MLP head.
    """

    prediction: Tensor
    radius: Tensor
    bound: Tensor
    body_bound: Tensor
    layer_bounds: tuple[tuple[str, float], ...]
    method: str
    head: str
    level: str
    dtype: torch.dtype
    device: str
    head_radii: HeadRadii | None = None

    def accuracy(self, eps: float, labels: Tensor) -> float:
        """Certified accuracy: the share of samples that are right and have radius > eps."""
        return float(self.robust(eps, labels).double().mean())

    def robust(self, eps: float, labels: Tensor) -> Tensor:
        """Mask of the samples that are predicted right and certified beyond eps."""
        if eps < 0:
            raise UsageError(f"eps is a distance, got {eps}")
        right = self.prediction == labels.to(self.prediction.device)
        return right & (self.radius > eps)
