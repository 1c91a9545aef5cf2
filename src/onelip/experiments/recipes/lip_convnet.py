"""Skew orthogonal and Cayley networks on CIFAR.

Tables 1, 3 and 4 of Singla and Feizi (2022), and the rows of others in Tables 2 and 3 of Meunier et
al. (2022).
"""

from dataclasses import replace

from onelip.experiments.classification.recipe import Recipe
from onelip.image_sets import CIFAR10_MEAN, CIFAR100_MEAN, CIFAR_STD

_SOC = Recipe(
    name="",
    about="",
    dataset="cifar10",
    model="lip_convnet",
    objective={"offset": 0.0, "temperature": 1.0},
    epochs=200,
    batch_size=128,
    lr=0.1,
    optimizer="sgd",
    schedule="steps",
    weight_decay=5e-4,
    crop=4,
    flip=True,
)

_LIP_CONVNETS = [
    replace(
        _SOC,
        name=f"lipconvnet-{depth}-{dataset}{suffix}",
        about=f"LipConvnet-{depth}, {dataset}, {about}: Tables 1, 3, 4 of improved l2 robustness",
        dataset=dataset,
        network={"depth": depth, "exact_gradient": not suffix},
    )
    for dataset in ("cifar10", "cifar100")
    for depth in range(5, 45, 5)
    for suffix, about in (("", "exact gradient"), ("-fast", "fast gradient"))
]

_CRC = [
    replace(
        _SOC,
        name=f"lipconvnet-{depth}-{dataset}-crc",
        about=f"LipConvnet-{depth}, {dataset}, projection pooling and MLP head: Tables 1, 3, 4",
        dataset=dataset,
        network={"depth": depth, "pooling": "projection", "head": "mlp"},
        loss="crc",
        objective={"radius": radius / CIFAR_STD[0], "weight": weight},
        clip_norm=1.0,
        certificate="curvature",
    )
    for dataset, radius, weight in (("cifar10", 36 / 255, 0.5), ("cifar100", 0.2, 0.75))
    for depth in range(5, 45, 5)
]

_COMPARED = [
    replace(
        _SOC,
        name=f"soc{plus}-{depth}-{dataset}",
        about=f"SOC{'+' if plus else ''}-{depth}, {dataset}: Convex Potential's Tables 2 and 3",
        dataset=dataset,
        network={
            "depth": depth,
            "pooling": "max" if plus else "stride",
            "activation": "householder" if plus else "max-min",
            "head": "unit-rows" if plus or dataset == "cifar100" else "orthogonal",
        },
        loss="certificate" if plus else "cross-entropy",
        # the published code leaves gamma at 0; SOC+ says only that it is positive
        objective={"gamma": 0.5} if plus else _SOC.objective,
    )
    for dataset in ("cifar10", "cifar100")
    for depth in (10, 20)
    for plus in ("", "-plus")
]

_CAYLEY = [
    replace(
        _SOC,
        name=f"cayley-kw3-{dataset}",
        about=f"Cayley layers, KW large of width 3, {dataset}: Convex Potential's Tables 2 and 3",
        dataset=dataset,
        model="kw3",
        network={
            "mean": CIFAR10_MEAN if dataset == "cifar10" else CIFAR100_MEAN,
            "head": "orthogonal" if dataset == "cifar10" else "unit-rows",
        },
        loss="hinge",
        objective={"margin": 0.5 * 2**0.5},
        lr=1e-2,
        optimizer="adam",
        schedule="triangular",
        weight_decay=0.0,
    )
    for dataset in ("cifar10", "cifar100")
]

RECIPES = (*_LIP_CONVNETS, *_CRC, *_COMPARED, *_CAYLEY)
