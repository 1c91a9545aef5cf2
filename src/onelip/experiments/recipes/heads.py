"""Three heads on one body, trained alike: the gain of an MLP head (Singla and Feizi, 2022).

The loss is theirs for all: cross-entropy of features that an attack has moved. A linear head has no
curvature, so that its penalty falls away. Radii of MLP heads come from curvature, those of linear
ones from the distances of their rows.
"""

from dataclasses import replace

from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.recipes.convex_potential import RECIPES as _CONVEX_POTENTIAL
from onelip.experiments.recipes.mnist import RECIPES as _MNIST

_DIGITS = next(recipe for recipe in _CONVEX_POTENTIAL if recipe.name == "digits")


def _heads(body: Recipe, *, hidden: int, radius: float, weight: float, epochs: int) -> list[Recipe]:
    alike = replace(body, loss="crc", epochs=epochs)
    objective = {"radius": radius, "weight": 0.0, "steps": 3}
    linear = [
        replace(
            alike,
            name=f"{body.name}-{head}",
            about=f"{what} on the body of {body.name!r}, trained as {body.name}-crc",
            network={"head": head},
            objective=objective,
        )
        for head, what in (("linear", "linear head"), ("unit-rows", "rows of length 1"))
    ]
    mlp = replace(
        alike,
        name=f"{body.name}-crc",
        about=f"MLP head on the body of {body.name!r}, certified by its curvature",
        network={"head": "mlp", "hidden": hidden},
        objective={**objective, "weight": weight},
        certificate="curvature",
    )
    return [*linear, mlp]


RECIPES = (
    *_heads(_DIGITS, hidden=256, radius=0.5, weight=0.005, epochs=60),
    *_heads(_MNIST[0], hidden=512, radius=1.58, weight=0.1, epochs=10),
)
