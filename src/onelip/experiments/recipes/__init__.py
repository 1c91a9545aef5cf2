"""Settings of classification runs by name: one file per paper, one entry per table row."""

from onelip.experiments.recipes import bcop, convex_potential, crm, heads, lip_convnet, mnist

RECIPES = {
    recipe.name: recipe
    for recipes in (
        convex_potential.RECIPES,
        mnist.RECIPES,
        bcop.RECIPES,
        lip_convnet.RECIPES,
        crm.RECIPES,
        heads.RECIPES,
    )
    for recipe in recipes
}
"""Every recipe by name."""
