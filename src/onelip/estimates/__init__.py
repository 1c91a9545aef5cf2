"""Estimates of operator norms, from below: for training only, never for a certificate."""

from onelip.estimates.power_iteration import power_iteration

__all__ = ["power_iteration"]
