"""Sweeps: many runs of a recipe, over a grid of its settings or a search among them."""
