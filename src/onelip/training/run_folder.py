"""The folder of a training run: ``metrics.json``, ``model.safetensors``, a checkpoint, figures."""

import dataclasses
from pathlib import Path

import torch
from torch import nn

from onelip.data import SHAPES
from onelip.errors import UsageError
from onelip.models import MODELS
from onelip.recipes import Recipe
from onelip.training.folder import Folder
from onelip.training.schema import TrainingRecord, checked_arguments


class RunFolder(Folder[TrainingRecord]):
    """Reads and writes the files of a run.

    Args:
        path: the folder.
    """

    command, key, suffix, schema = "train", "recipe", ".ckpt", TrainingRecord

    @classmethod
    def create(cls, recipe: Recipe, path: Path | None) -> "RunFolder":
        """A new folder with the recipe in it, ``runs/NAME-DATE-TIME`` by default.

        Raises:
            UsageError: the folder exists, or cannot be made.
        """
        return cls._new(path, recipe.name, dataclasses.asdict(_plain(recipe)))

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        return self._stored(Recipe)

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self._weights("model")

    def save_model(self, model: nn.Module) -> None:
        """Write the weights."""
        self.save_weights("model", model)

    def load_model(self) -> nn.Module:
        """The trained model, in eval mode.

        Raises:
            UsageError: the weights are missing, corrupt, or those of another model.
        """
        model = build_model(self.recipe)
        self.load_weights("model", model)
        if "train" not in self.read():
            raise UsageError(f"{self.record} has no entry 'train': {self.resume} writes it")
        return model.eval()


def build_model(recipe: Recipe) -> nn.Module:
    """The untrained model of a recipe.

    Raises:
        UsageError: the recipe names no known model or data set, or wrong arguments.
    """
    if recipe.model not in MODELS:
        raise UsageError(f"no model {recipe.model!r}; known: {', '.join(MODELS)}")
    shape, classes = SHAPES[recipe.dataset]
    checked_arguments(MODELS[recipe.model], recipe.network, recipe.model)
    try:
        model = MODELS[recipe.model](shape, classes, **recipe.network)
    except Exception as error:  # sizes that no layer or machine can have raise anything
        raise UsageError(f"{recipe.model} cannot be built: {error}") from None
    if not any(True for _ in model.parameters()):
        raise UsageError(f"{recipe.model} has no weights to train: give it a layer")
    return model


def use_threads(recipe: Recipe) -> None:
    """Let torch use as many CPU threads as the recipe says."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)


def _plain(recipe: Recipe) -> Recipe:
    """The recipe with plain dictionaries, which can be written as JSON."""
    return dataclasses.replace(
        recipe, network=dict(recipe.network), objective=dict(recipe.objective)
    )
