"""Activations that are not elementwise."""

from onelip.activations.group_sort import GroupSort, MaxMin

__all__ = ["GroupSort", "MaxMin"]
