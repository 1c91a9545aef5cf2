"""CRM's recipes: the published numbers, and the two readings of CIFAR-10 that are one loss."""

import dataclasses

import pytest
import torch

from onelip.experiments.classification import build_loss, build_model
from onelip.experiments.classification.training.schedule import SCHEDULES
from onelip.experiments.recipes import RECIPES
from onelip.losses import LOSSES

DATASETS = ("mnist", "cifar10", "tiny-imagenet")
NAMES = [name for name in RECIPES if name.startswith(("crm-", "gloro-", "standard-"))]


def test_names():
    wanted = {f"{kind}-{data}" for kind in ("crm", "gloro", "standard") for data in DATASETS}
    assert {*NAMES} == wanted | {"crm-cifar10-released"}


@pytest.mark.parametrize(
    ("data", "model", "sizes", "lr", "decay", "objective", "moved"),
    [
        ("mnist", "4c3f", (512, 400), 1e-3, 25, (2.2, 30, 5), (0, 0, False)),
        ("cifar10", "6c2f", (512, 400), 1e-3, 200, (0.2, 15, 5), (10, 0.1, True)),
        ("tiny-imagenet", "8c2f", (256, 300), 1e-4, 100, (0.2, 150, 12), (20, 0.2, True)),
    ],
)
def test_published_numbers(data, model, sizes, lr, decay, objective, moved):
    recipe = RECIPES[f"crm-{data}"]
    assert (recipe.dataset, recipe.model, recipe.loss) == (data, model, "crm")
    assert (recipe.batch_size, recipe.epochs) == sizes
    named = dict(zip(("radius", "weight", "temperature"), objective, strict=True))
    assert recipe.objective == {**named, "start_epoch": 10}
    assert (recipe.rotate, recipe.translate, recipe.flip) == moved
    assert (recipe.optimizer, recipe.weight_decay, recipe.crop) == ("adam", 0, 0)
    rates = [recipe.lr * SCHEDULES[recipe.schedule](e / recipe.epochs) for e in range(sizes[1] + 1)]
    assert rates[: decay + 1] == pytest.approx([lr] * (decay + 1))
    assert rates[decay + 1] < 0.99 * lr
    assert rates[-1] == pytest.approx(lr / 1000)


@pytest.mark.parametrize("data", DATASETS)
def test_what_is_compared_sees_the_same_images(data):
    crm, gloro, standard = (RECIPES[f"{kind}-{data}"] for kind in ("crm", "gloro", "standard"))
    for name in ("model", "network", "flip", "rotate", "translate", "validation", "eps"):
        assert getattr(crm, name) == getattr(gloro, name) == getattr(standard, name)
    for name in ("epochs", "batch_size", "lr", "schedule"):
        assert getattr(crm, name) == getattr(standard, name)
    assert gloro.objective["epsilon"] == 1.1 * (1.58 if data == "mnist" else 36 / 255)
    assert gloro.constants == "product"
    assert dataclasses.replace(gloro, constants="naive") == gloro  # as records of old have it


@pytest.mark.parametrize("name", NAMES)
def test_models_and_losses_can_be_built(name):
    recipe = RECIPES[name]
    build_loss(recipe)
    with torch.device("meta"):
        model = build_model(recipe)
    assert model[-1].out_features == (200 if recipe.dataset == "tiny-imagenet" else 10)


def test_plain_training_is_cross_entropy():
    logits, labels = torch.randn(9, 10), torch.arange(9)
    loss = build_loss(RECIPES["standard-mnist"])(logits, labels)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, labels))


def test_both_readings_of_cifar10():
    """Published numbers on inputs in [-1, 1], or those of the recipe on pixels: the same loss."""
    released = RECIPES["crm-cifar10-released"]
    published = LOSSES["crm"](**RECIPES["crm-cifar10"].objective)
    ours = LOSSES["crm"](**released.objective)
    logits = 4 * torch.randn(64, 10, dtype=torch.float64)
    labels = logits.argmax(1)  # right, so that radii count
    of_scaled = 5 + 20 * torch.rand(10, 10, dtype=torch.float64)
    of_pixels = of_scaled / 0.5  # the layer in front stretches pixels by 1 / std
    wanted = published(logits, labels, of_scaled)
    torch.testing.assert_close(ours(logits, labels, of_pixels), wanted)
    assert (wanted - torch.nn.functional.cross_entropy(logits, labels)).abs() > 0.1  # radii count
    assert (wanted - published(logits, labels, of_pixels)).abs() > 0.1  # and so does the scale
    assert released.network == {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    with torch.device("meta"):
        scaling = build_model(released)[0]
    assert type(scaling).__name__ == "Normalize"
