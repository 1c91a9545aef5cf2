"""Average constants of logit differences, as in Table 2 of Fazlyab et al. (2023)."""

import math

import torch

from onelip.bounds import Constants


def averages(proved: Constants) -> dict[str, float]:
    """Means over all pairs of classes.

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
