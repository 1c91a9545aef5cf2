"""Averages of a run's constants: over pairs of logits, and the tightness of an MLP head."""

import math

import torch

from onelip.bounds import LogitBounds
from onelip.certificates import CurvatureProof, HeadRadii

EXACT = 1e-3
"""A radius is called exact when its witness is at most this much further away, relative."""


def averages(proved: LogitBounds) -> dict[str, float]:
    """Return means over all pairs of classes, as in Table 2 of Fazlyab et al. (2023).

    Returns:
        ``pairwise``, of the constants of differences; ``sum``, of the sums of the two logits'; and
        ``sqrt2``, the root of 2 times the network's.
    """
    classes = len(proved.per_class)
    first, second = torch.triu_indices(classes, classes, 1)
    return {
        "pairwise": float(proved.pairwise[first, second].mean()),
        "sum": float((proved.per_class[first] + proved.per_class[second]).mean()),
        "sqrt2": math.sqrt(2) * float(proved.network),
    }


def tightness(found: HeadRadii, proved: CurvatureProof) -> dict[str, float]:
    """Compare the radii before an MLP head with the distances of their witnesses.

    Returns:
        ``exact``, the share of positive radii that are exact to ``EXACT``; ``ratio``, the mean of
        radius by distance where there is a witness; ``pairs_proved``, of how many ordered pairs of
        classes the curvature was proved.
    """
    sure = (found.radius > 0) & found.distance.isfinite()
    ratio = found.radius[sure] / found.distance[sure]
    return {
        "exact": float((ratio >= 1 - EXACT).sum()) / max(1, int((found.radius > 0).sum())),
        "ratio": float(ratio.sum()) / max(1, len(ratio)),
        "pairs_proved": proved.curvature.proved_pairs,
    }
