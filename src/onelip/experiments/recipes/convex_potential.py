"""Convex Potential networks: Tables 2 and 3 of Meunier et al. (2022), MNIST and digits."""

from dataclasses import replace

from onelip.experiments.classification.recipe import Recipe
from onelip.image_sets import CIFAR100_MEAN

_DIGITS = Recipe(
    name="digits",
    about="Convex Potential network on scikit-learn's digits; under a minute on two cores",
    dataset="digits",
    model="cpl_digits",
    objective={"offset": 1.0, "temperature": 0.25},
    epochs=60,
    batch_size=64,
    lr=1e-2,
    validation=150,
    threads=1,
    eps=(0.1, 0.25, 0.5, 0.75, 1.0),
    attack_samples=450,
)

_MNIST = Recipe(
    name="cpl-mnist",
    about="dense Convex Potential network on MNIST, at the radius 1.58 of BCOP and CRM",
    dataset="mnist",
    model="cpl_mnist",
    objective={"offset": 3.0, "temperature": 0.5},
    epochs=45,
    lr=3e-3,
    eps=(0.3, 1.0, 1.58),
)

_CIFAR10 = Recipe(
    name="cpl-s-cifar10",
    about="CPL-S on CIFAR-10, Table 2",
    dataset="cifar10",
    model="cpl_s",
    loss="hinge",
    objective={"margin": 0.7},
    crop=4,
    flip=True,
)

_CIFAR = [
    replace(
        _CIFAR10,
        name=f"cpl-{size}-{dataset}",
        about=f"CPL-{size.upper()} on CIFAR-{dataset[5:]}, Table {table}",
        dataset=dataset,
        model=f"cpl_{size}",
        network={} if dataset == "cifar10" else {"head": "unit-rows", "mean": CIFAR100_MEAN},
    )
    for dataset, table in (("cifar10", 2), ("cifar100", 3))
    for size in ("s", "m", "l", "xl")
]

_RELAXED = [
    replace(
        _CIFAR10,
        name=f"cpl-s-relaxed-{step}",
        about=f"CPL-S with the fixed step {step}, appendix D.2: not 1-Lipschitz",
        network={"step": step},
    )
    for step in (1.0, 0.1, 0.01)
]

_DEEP = [
    replace(
        _CIFAR10,
        name=f"cpl-depth-{depth}",
        about=f"{depth} convolutional layers of 30 channels, appendix D.1",
        network={"conv_layers": depth, "channels": 30},
    )
    for depth in (100, 300, 500, 700, 1000)
]

RECIPES = (_DIGITS, _MNIST, *_CIFAR, *_RELAXED, *_DEEP)
