"""Estimates of norms and constants: for training and comparison, never for a certificate."""

from onelip.estimates.activation_patterns import activation_patterns
from onelip.estimates.jacobian import jacobian_estimate
from onelip.estimates.liplt import LipLTEstimate, NaiveEstimate
from onelip.estimates.lower_estimate import lower_estimate
from onelip.estimates.pair_search import Pair, pair_search
from onelip.estimates.power_iteration import (
    leading_direction,
    power_iteration,
    usable,
)

__all__ = [
    "LipLTEstimate",
    "NaiveEstimate",
    "Pair",
    "activation_patterns",
    "jacobian_estimate",
    "leading_direction",
    "lower_estimate",
    "pair_search",
    "power_iteration",
    "usable",
]
