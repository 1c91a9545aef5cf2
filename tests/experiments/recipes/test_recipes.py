"""Recipes: what they name exists, and what is written is what is read."""

import dataclasses
import inspect
import json

import pytest

from onelip.data import DATASETS, SHAPES
from onelip.errors import UsageError
from onelip.experiments.classification import ClassificationFolder, Recipe
from onelip.experiments.recipes import RECIPES
from onelip.image_sets import OWN
from onelip.losses import LOSSES
from onelip.models import MODELS

ALL = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)


@ALL
def test_names(recipe):
    assert RECIPES[recipe.name] is recipe
    assert recipe.dataset in (*DATASETS, OWN)
    assert recipe.model in MODELS
    assert recipe.loss in LOSSES
    assert "\n" not in recipe.about
    assert recipe.about


@ALL
def test_arguments(recipe):
    """Bound as they will be called, without building anything."""
    shape, classes = SHAPES.get(recipe.dataset, ((1, 4, 4), 2))
    inspect.signature(MODELS[recipe.model]).bind(shape, classes, **recipe.network)
    inspect.signature(LOSSES[recipe.loss]).bind(**recipe.objective)


@ALL
def test_json(recipe, tmp_path):
    run = ClassificationFolder.create(recipe, tmp_path / "run")
    read = ClassificationFolder.open(run.path).recipe
    assert dataclasses.asdict(read) == dataclasses.asdict(run.recipe)
    for field in dataclasses.fields(Recipe):
        written = getattr(recipe, field.name)
        if field.name in ("network", "objective"):
            written = json.loads(json.dumps(dict(written)))  # tuples become lists
        assert getattr(read, field.name) == written


@ALL
def test_eps(recipe):
    """CIFAR's radii are those of the paper, in 255ths, and never a rounded 0.141."""
    assert list(recipe.eps) == sorted(recipe.eps)
    if recipe.dataset.startswith(("cifar", "tiny")):
        *more, first, second, third = recipe.eps
        assert (first, second, third) == (36 / 255, 72 / 255, 108 / 255)
        assert more == ([18 / 255] if recipe.model == "6c2f" else [])


@ALL
def test_channels_fit_the_head(recipe):
    assert recipe.network.get("head") in (
        None,
        "truncate",
        "unit-rows",
        "orthogonal",
        "linear",
        "mlp",
    )
    moved = 4 if recipe.dataset.startswith("cifar") and not recipe.rotate else 0
    assert recipe.crop == moved
    assert bool(recipe.rotate) == bool(recipe.translate)
    assert not (recipe.flip and recipe.dataset in ("digits", "mnist"))


def test_the_tables_are_complete():
    assert {f"cpl-{size}-cifar{n}" for size in ("s", "m", "l", "xl") for n in (10, 100)} <= {
        *RECIPES
    }
    for size in ("s", "m", "l", "xl"):
        cifar10, cifar100 = (RECIPES[f"cpl-{size}-cifar{n}"] for n in (10, 100))
        assert cifar10.model == cifar100.model == f"cpl_{size}"
        assert cifar10.network == {}
        assert cifar100.network["head"] == "unit-rows"
        assert cifar100.network["mean"] == pytest.approx((0.507, 0.487, 0.441), abs=1e-3)
        assert (cifar10.epochs, cifar10.batch_size, cifar10.lr) == (200, 256, 1e-3)
        assert (cifar10.loss, cifar10.objective) == ("hinge", {"margin": 0.7})


def test_a_recipe_cannot_be_changed():
    recipe = RECIPES["digits"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.epochs = 3
    assert Recipe("a", "b", "digits", "cpl_digits").network == {}
    with pytest.raises(TypeError):
        Recipe("a", "b", "digits", "cpl_digits").network["pool"] = 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "foo"}, "no data set 'foo'; known: digits"),
        ({"epochs": 0}, "--epochs must be positive, got 0"),
        ({"batch_size": -1}, "--batch_size must be positive"),
        ({"lr": 0.0}, "--lr must be positive"),
        ({"lr": float("nan")}, "--lr must be positive, got nan"),
        ({"validation": 0}, "--validation must be positive"),
        ({"attack_steps": 0}, "--attack_steps must be positive"),
        ({"attack_restarts": 0}, "--attack_restarts must be positive"),
        ({"crop": -1}, "--crop must not be negative"),
        ({"rotate": -1.0}, "--rotate must be in 0 to 180, got -1.0"),
        ({"rotate": 180.5}, "--rotate must be in 0 to 180"),
        ({"rotate": float("nan")}, "--rotate must be in 0 to 180, got nan"),
        ({"translate": -0.1}, "--translate must be in 0 to 1, got -0.1"),
        ({"translate": 1.5}, "--translate must be in 0 to 1"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"split_seed": 2**63}, "--split_seed must be below"),
        ({"attack_samples": -1}, "--attack_samples must not be negative"),
        ({"eps": ()}, "--eps must hold finite positive radii"),
        ({"eps": (0.1, 0.0)}, "--eps must hold finite positive radii"),
        ({"eps": (0.1, float("inf"))}, "--eps must hold finite positive radii"),
        ({"eps": (float("nan"),)}, "--eps must hold finite positive radii"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(RECIPES["digits"], **changes)
