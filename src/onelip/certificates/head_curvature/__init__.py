"""Radii in front of a head with one hidden layer, from bounds of its curvature."""
