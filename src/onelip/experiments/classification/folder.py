"""Folder of a training run: ``metrics.json``, ``model.safetensors``, a checkpoint, figures."""

from pathlib import Path

from torch import nn

from onelip.errors import UsageError
from onelip.experiments.classification.build import build_model
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.record_schema import TrainingRecord
from onelip.experiments.run_folder import RunFolder


class ClassificationFolder(RunFolder[Recipe, TrainingRecord]):
    """Reader and writer of the files of a run.

    Args:
        path: the folder.
    """

    command, key, suffix = "train", "recipe", ".ckpt"
    settings_type, schema = Recipe, TrainingRecord

    @property
    def recipe(self) -> Recipe:
        """Settings of the run."""
        return self.settings

    @property
    def weights(self) -> Path:
        """File of the weights."""
        return self._weights("model")

    def save_model(self, model: nn.Module) -> None:
        """Write the weights."""
        self.save_weights("model", model)

    def load_model(self) -> nn.Module:
        """Return the trained model, in eval mode.

        Raises:
            UsageError: the weights are missing, corrupt, or those of another model.
        """
        model = build_model(self.recipe)
        self.load_weights("model", model)
        if "train" not in self.read():
            raise UsageError(f"{self.record} has no entry 'train': {self.resume} writes it")
        return model.eval()
