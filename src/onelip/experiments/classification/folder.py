"""Folder of a training run: ``metrics.json``, ``model.safetensors``, a checkpoint, figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from torch import nn

from onelip.data import DataSet, Source, open_data
from onelip.data.data_set import digest
from onelip.errors import UsageError
from onelip.experiments.classification.build import build_model
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.own_code import prepare
from onelip.experiments.record_schema import Code, Data, TrainingRecord
from onelip.experiments.run_folder import RunFolder
from onelip.image_sets import OWN, DataInfo, published


class ClassificationFolder(RunFolder[Recipe, TrainingRecord]):
    """Reader and writer of the files of a run.

    Args:
        path: the folder.
    """

    _opened: DataSet | None = None

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

    @property
    def info(self) -> DataInfo:
        """Facts of the data of the run, without reading them.

        Raises:
            UsageError: the record does not say what is in data of one's own.
        """
        recipe = self.recipe
        if recipe.dataset != OWN:
            return published(recipe.dataset)
        stored = self.read().get("data", {})
        if "shape" not in stored or "classes" not in stored:
            raise UsageError(f"{self.record} does not say what the data are: train a new run")
        info = DataInfo(
            tuple(stored["shape"]),
            tuple(stored["classes"]),
            tuple(stored.get("columns", ())),
            tuple(stored.get("mean", ())),
            tuple(stored.get("std", ())),
        )
        if len({len(info.columns), len(info.mean), len(info.std)}) > 1 or (
            info.columns and info.shape != (len(info.columns),)
        ):
            raise UsageError(f"{self.record} names other columns than it scales: train a new run")
        return info

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        data: DataSet,
        path: Path | None = None,
        code: Mapping[str, Code] | None = None,
    ) -> Self:
        """Make a new folder for a run on data that are open already; see ``create``.

        Args:
            recipe: of the run.
            data: of the run.
            path: of the folder.
            code: files of code of the user's own.
        """
        entries: dict[str, Any] = {"data": data.record()} if recipe.dataset == OWN else {}
        entries |= {"code": code} if code else {}
        run = cls.create(recipe, path, entries)
        run._opened = data
        return run

    def data(self, place: Path | None = None) -> DataSet:
        """Open the data of the run.

        Args:
            place: where they are now, if not where they were.

        Raises:
            UsageError: they cannot be used, or data of one's own are others than at the start.
        """
        if self._opened is not None and place is None:
            return self._opened
        recipe, stored = self.recipe, self.read().get("data", {})
        folder = str(place) if place is not None else stored.get("folder")
        size = stored.get("size")
        if folder is None:
            source = None
        else:
            source = Source(folder, stored.get("label"), (size[0], size[1]) if size else None)
        data = open_data(
            recipe.dataset, source, validation=recipe.validation, split_seed=recipe.split_seed
        )
        if recipe.dataset == OWN:
            _refuse_changes(data, stored, folder)
        self._opened = data
        return data

    def load_model(self) -> nn.Module:
        """Return the trained model, in eval mode.

        Raises:
            UsageError: the weights are missing, corrupt, or those of another model.
        """
        prepare(self.read().get("code", {}))
        model = build_model(self.recipe, self.info)
        self.load_weights("model", model)
        if "train" not in self.read():
            raise UsageError(f"{self.record} has no entry 'train': {self.resume} writes it")
        return model.eval()


def _refuse_changes(data: DataSet, stored: Data, place: str | None) -> None:
    """Refuse data that are not those that the run was started with."""
    found = {"train": data.train, "validation": data.validation, "test": data.test}
    for split, kept in stored.get("splits", {}).items():
        if split in found and digest(found[split]) != kept["sha256"]:
            raise UsageError(
                f"{place} holds other data than the run was started with (its {split} split has "
                "another SHA-256): restore them, name their place with --data, or train a new run"
            )
