"""Estimates of operator norms, from below: for training only, never for a certificate."""

from onelip.estimates.power_iteration import leading_direction, power_iteration

__all__ = ["leading_direction", "power_iteration"]
