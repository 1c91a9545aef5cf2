"""``onelip recipes``: what can be trained."""

from onelip.cli.arguments import new_parser
from onelip.experiments.recipes import RECIPES


def run(arguments: list[str]) -> None:
    """Print every recipe."""
    if arguments:
        new_parser("recipes").parse_args(arguments)
    for recipe in RECIPES.values():
        print(f"{recipe.name:22} {recipe.about}")
