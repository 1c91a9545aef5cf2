"""The old place of the recipes: ``onelip.experiments`` has them."""

from onelip.errors import keep_old_names

keep_old_names(
    __name__,
    {
        "RECIPES": "onelip.experiments.recipes.RECIPES",
        "Recipe": "onelip.experiments.classification.Recipe",
    },
)
