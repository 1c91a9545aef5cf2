"""Networks for data of any shape: dense for everything, convolutions for images."""

from dataclasses import replace

from onelip.experiments.classification.recipe import Recipe
from onelip.image_sets import OWN

_DENSE = Recipe(
    name="dense",
    about="three orthogonal dense layers of 256, for tables and for images of any size",
    dataset=OWN,
    model="mnist_dense",
    network={"features": (256, 256, 256)},
    objective={"offset": 1.0, "temperature": 0.25},
    epochs=60,
    batch_size=64,
    lr=3e-3,
    schedule="one-cycle",
    threads=1,
    eps=(0.1, 0.25, 0.5),
)
_CONVOLUTIONS = replace(
    _DENSE,
    name="conv",
    about="two orthogonal convolutions and two dense layers, for images whose sides 4 divides",
    model="kw_small",
    network={"head": "unit-rows"},
)

RECIPES = (_DENSE, _CONVOLUTIONS)
