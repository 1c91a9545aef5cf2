"""Settings of classification runs by name: one file per paper, one entry per table row."""

from collections.abc import Callable
from dataclasses import dataclass

from onelip.experiments.recipes import (
    bcop,
    convex_potential,
    crm,
    heads,
    lip_convnet,
    mnist,
    own_data,
)

RECIPES = {
    recipe.name: recipe
    for recipes in (
        convex_potential.RECIPES,
        mnist.RECIPES,
        bcop.RECIPES,
        lip_convnet.RECIPES,
        crm.RECIPES,
        heads.RECIPES,
        own_data.RECIPES,
    )
    for recipe in recipes
}
"""Every recipe by name."""


@dataclass(frozen=True)
class Group:
    """Recipes that belong together.

    Args:
        about: one line.
        recipes: their names; a row of two tables is in both groups.
    """

    about: str
    recipes: tuple[str, ...]


def _group(about: str, belongs: Callable[[str, str], bool]) -> Group:
    """Group the recipes of which name and description say so."""
    return Group(about, tuple(name for name in RECIPES if belongs(name, RECIPES[name].about)))


def _compared(name: str, dataset: str) -> bool:
    return name.startswith(("soc", "cayley")) and name.endswith(dataset)


GROUPS = {
    "own": _group(
        "data of your own: onelip train dense --data FOLDER", lambda n, _: n in ("dense", "conv")
    ),
    "digits": _group("scikit-learn's digits, in a minute", lambda n, _: n.startswith("digits")),
    "mnist": _group("MNIST at the radius 1.58", lambda n, _: n.startswith(("mnist", "cpl-mnist"))),
    "heads": _group(
        "heads on one body, trained alike",
        lambda n, _: n.endswith(("-linear", "-unit-rows")) or n in ("digits-crc", "mnist-crc"),
    ),
    "bcop-1": _group(
        "Table 1 of Li et al. (2019)", lambda _, about: about.endswith("BCOP's Table 1")
    ),
    "bcop-2": _group(
        "Table 2 of Li et al. (2019)",
        lambda n, _: (
            n.startswith("bcop-fc3") or (n.startswith("bcop-large") and n.endswith("-bcop"))
        ),
    ),
    "cpl-2": _group(
        "Table 2 of Meunier et al. (2022)",
        lambda n, about: about.endswith("CIFAR-10, Table 2") or _compared(n, "cifar10"),
    ),
    "cpl-3": _group(
        "Table 3 of Meunier et al. (2022)",
        lambda n, about: about.endswith("CIFAR-100, Table 3") or _compared(n, "cifar100"),
    ),
    "cpl-d": _group(
        "appendix D of Meunier et al. (2022): depth, and steps that are not proved",
        lambda _, about: "appendix D" in about,
    ),
    "improved-l2": _group(
        "Tables 1, 3 and 4 of Singla and Feizi (2022)", lambda n, _: n.startswith("lipconvnet")
    ),
    "crm-1": _group(
        "Table 1 of Fazlyab et al. (2023)", lambda _, about: about.endswith("CRM's Table 1")
    ),
}
"""Groups of recipes by name; every recipe is in one at least."""
