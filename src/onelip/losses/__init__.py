"""Losses that ask for a margin."""

from onelip.losses.margin import MarginHinge, OffsetCrossEntropy

LOSSES = {"hinge": MarginHinge, "cross-entropy": OffsetCrossEntropy}
"""Every loss by name, for recipes and the command line."""

__all__ = ["LOSSES", "MarginHinge", "OffsetCrossEntropy"]
