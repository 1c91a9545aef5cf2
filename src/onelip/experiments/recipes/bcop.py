"""BCOP and its baselines: Tables 1 and 2 of Li et al. (2019)."""

from dataclasses import replace

from onelip.experiments.classification.recipe import Recipe

_MNIST = Recipe(
    name="",
    about="",
    dataset="mnist",
    model="kw_small",
    loss="hinge",
    objective={"margin": 1.5 * 2**0.5},
    epochs=200,
    batch_size=128,
    lr=1e-3,
    schedule="exponential",
    eps=(0.3, 1.0, 1.58),
)
_CIFAR10 = replace(
    _MNIST,
    dataset="cifar10",
    objective={"margin": 0.5 * 2**0.5},
    crop=4,
    flip=True,
    eps=(36 / 255, 72 / 255, 108 / 255),
)
_DATASETS = {"mnist": _MNIST, "cifar10": _CIFAR10}

_CONVOLUTIONS = [
    replace(
        base,
        name=f"bcop-{size}-{dataset}-{family}",
        about=f"{family.upper()}, {size} network, {dataset}: BCOP's Table 1",
        model=f"kw_{size}",
        network={"convolution": family},
        projection_interval=100 if family == "svcm" else 0,
    )
    for dataset, base in _DATASETS.items()
    for size in ("small", "large")
    for family in ("bcop", "rko", "ossn", "svcm")
]

_DENSE = [
    replace(
        base,
        name=f"bcop-fc3-{dataset}",
        about=f"three dense layers of 1024, {dataset}: BCOP's Table 2",
        model="fc3",
    )
    for dataset, base in _DATASETS.items()
]

RECIPES = (*_CONVOLUTIONS, *_DENSE)
