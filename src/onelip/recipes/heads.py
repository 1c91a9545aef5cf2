"""Three heads on one body, trained alike: what an MLP head (Singla and Feizi, 2022) is worth.

The loss is theirs for all: cross-entropy of features that an attack has moved. A linear head has no
curvature, so that its penalty falls away. Radii of MLP heads come from curvature, those of linear
ones from the distances of their rows.
"""

from dataclasses import replace

from onelip.recipes.convex_potential import RECIPES as _CONVEX_POTENTIAL
from onelip.recipes.mnist import RECIPES as _MNIST
from onelip.recipes.recipe import Recipe

_DIGITS = next(recipe for recipe in _CONVEX_POTENTIAL if recipe.name == "digits")


def _heads(body: Recipe, *, hidden: int, radius: float, weight: float, epochs: int) -> list[Recipe]:
    alike = replace(body, loss="crc", epochs=epochs)
    objective = {"radius": radius, "weight": 0.0, "steps": 3}
    return [
        replace(
            alike,
            name=f"{body.name}-linear",
            about=f"linear head on the body of {body.name!r}, trained as {body.name}-crc",
            network={"head": "linear"},
            objective=objective,
        ),
        replace(
            alike,
            name=f"{body.name}-unit-rows",
            about=f"rows of length 1 on the body of {body.name!r}, trained as {body.name}-crc",
            network={"head": "unit-rows"},
            objective=objective,
        ),
        replace(
            alike,
            name=f"{body.name}-crc",
            about=f"MLP head on the body of {body.name!r}, certified by its curvature",
            network={"head": "mlp", "hidden": hidden},
            objective={**objective, "weight": weight},
            certificate="curvature",
        ),
    ]


RECIPES = (
    *_heads(_DIGITS, hidden=256, radius=0.5, weight=0.005, epochs=60),
    *_heads(_MNIST[0], hidden=512, radius=1.58, weight=0.1, epochs=10),
)
