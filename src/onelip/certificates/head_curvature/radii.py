"""Radii of a head with one hidden layer, proved for all rivals."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.certificates.head_curvature.rivals import Proofs, Rivals
from onelip.certificates.head_curvature.tangents import Differences

_NUMBERS_AT_ONCE = 2**22


@dataclass(frozen=True)
class HeadRadii:
    """Proved radii of a batch of features, with witnesses from above.

    Attributes:
        radius: ``(batch,)`` float64: in the open ball of this radius the head keeps its prediction,
            in exact arithmetic, from its weights as stored and the features as exact numbers.
        rival: ``(batch,)`` int64, the class that limits the radius.
        distance: ``(batch,)`` float64, distance of the witness, rounded upwards; infinite where
            none was found.
        witness: ``(batch, features)`` float64, a point where the rival is proved to be as large as
            the prediction; NaN where none was found.
    """

    radius: Tensor
    rival: Tensor
    distance: Tensor
    witness: Tensor


@torch.no_grad()
def head_radii(
    head: TwoLayers,
    features: Tensor,
    prediction: Tensor,
    curvature: Curvature,
    slopes: Tensor,
    *,
    steps: int = 30,
    tolerance: float = 1e-4,
    slack: float = 0.0,
) -> HeadRadii:
    """Radii around features in which the prediction of a head cannot change.

    Bound: each radius is proved for every rival, whatever the search did (``tangents.py``); it is
    at most ``distance``, and equal up to the tolerance where the head bends little.
    Shape: ``features`` is ``(batch, features)``.
    Cost: two products with the hidden layer per pair and step; a few pairs per sample, two or three
    steps per pair. Curvature is proved exactly only for pairs of classes that limit a sample whose
    radius the cheap bound leaves open.

    Args:
        head: the two layers.
        features: features of any float type.
        prediction: ``(batch,)`` the network's predictions; the radius is 0 where a rival's logit is
            not proved to be smaller.
        curvature: curvature bounds of the head.
        slopes: ``(classes, classes)``, proved Lipschitz constants of the differences of logits.
        steps: largest number of steps of each search; 0 gives the closed form of Singla and Feizi.
        tolerance: relative gap to the distance at which a search ends.
        slack: margin that must remain, for rounding outside this function.

    Example:
        >>> from torch import nn
        >>> head = TwoLayers.of(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3))
        >>> features = torch.randn(5, 4)
        >>> prediction = head(features.double()).argmax(1)
        >>> slopes = torch.full((3, 3), 100.0, dtype=torch.float64)
        >>> radii = head_radii(head, features, prediction, Curvature(head), slopes)
        >>> bool((radii.radius <= radii.distance).all())
        True
    """
    device = head.inner.device
    features, prediction = features.to(device, torch.float64), prediction.to(device)
    finite = torch.isfinite(features).all(1)
    features = torch.where(finite[:, None], features, 0.0)
    bounds = Proofs(Differences(head, slack), curvature, slopes.to(head.inner), steps, tolerance)
    at_once = max(1, _NUMBERS_AT_ONCE // max(head.inner.shape[0], head.classes))
    parts = [
        Rivals(bounds, *part).radii()
        for part in zip(features.split(at_once), prediction.split(at_once), strict=True)
    ]
    radius, rival, distance, witness = (torch.cat(column) for column in zip(*parts, strict=True))
    return HeadRadii(
        radius=torch.where(finite, radius, 0.0),
        rival=rival,
        distance=torch.where(finite, distance, math.inf),
        witness=torch.where(finite[:, None], witness, math.nan),
    )


def joined(parts: list[HeadRadii], order: Tensor) -> HeadRadii:
    """Join the radii of parts of a batch, and put them in an order."""
    columns = zip(*((p.radius, p.rival, p.distance, p.witness) for p in parts), strict=True)
    return HeadRadii(*(torch.cat(column)[order.to(column[0].device)] for column in columns))
