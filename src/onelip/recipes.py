"""The old place of the recipes: ``onelip.experiments`` has them."""

from onelip._lazy import moved

__getattr__ = moved(
    __name__,
    {
        "RECIPES": "onelip.experiments.recipes.RECIPES",
        "Recipe": "onelip.experiments.classification.Recipe",
    },
)
