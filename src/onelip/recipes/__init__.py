"""Training runs as typed data: one file per paper, one entry per table row."""

from onelip.recipes.convex_potential import RECIPES
from onelip.recipes.recipe import Recipe

__all__ = ["RECIPES", "Recipe"]
