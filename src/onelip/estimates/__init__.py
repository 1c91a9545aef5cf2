"""Estimates of norms and constants: for training and comparison, never for a certificate."""

from typing import Any

from onelip.errors import renamed
from onelip.estimates._activation_patterns import activation_patterns
from onelip.estimates._lower_estimate import lower_estimate
from onelip.estimates._pair_search import Pair, pair_search
from onelip.estimates._power_iteration import (
    leading_direction,
    power_iteration,
    usable,
)
from onelip.estimates.jacobian import jacobian_estimate
from onelip.estimates.liplt import LipLTEstimate, ProductEstimate

__all__ = [
    "LipLTEstimate",
    "Pair",
    "ProductEstimate",
    "activation_patterns",
    "jacobian_estimate",
    "leading_direction",
    "lower_estimate",
    "pair_search",
    "power_iteration",
    "usable",
]


def __getattr__(name: str) -> Any:
    if name != "NaiveEstimate":
        raise AttributeError(f"module {__name__} has no attribute {name}")
    renamed("onelip.estimates.NaiveEstimate", "onelip.estimates.ProductEstimate")
    return ProductEstimate
