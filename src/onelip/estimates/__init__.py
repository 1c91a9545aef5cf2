"""Estimates of norms and constants: for training and comparison, never for a certificate."""

from onelip.estimates.liplt import LipLTEstimate, NaiveEstimate
from onelip.estimates.power_iteration import leading_direction, power_iteration

__all__ = ["LipLTEstimate", "NaiveEstimate", "leading_direction", "power_iteration"]
