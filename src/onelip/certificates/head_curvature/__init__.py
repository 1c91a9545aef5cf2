"""Radii in the feature space of a head with one hidden layer, from bounds of its curvature."""
