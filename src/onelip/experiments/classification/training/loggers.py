"""Loggers beside ``epochs.csv``, which every run has: TensorBoard and Weights & Biases."""

import hashlib
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from lightning.pytorch.loggers import Logger

from onelip.errors import UsageError, missing_extra
from onelip.experiments.classification.folder import ClassificationFolder


def new_loggers(names: Sequence[str], run: ClassificationFolder) -> list[Logger]:
    """Return Lightning's loggers; they know the settings of the run.

    Args:
        names: of ``LOGGERS``.
        run: gets their files, in a folder with the logger's name.

    Raises:
        UsageError: there is no such logger, or its package is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise UsageError(f"no logger {name!r}; known: {', '.join(LOGGERS)}")
        if find_spec(name) is None:
            raise missing_extra(name, "log")
    made = [LOGGERS[name](run) for name in names]
    for logger in made:
        logger.log_hyperparams(run.recipe.as_record())
    return made


def _tensorboard(run: ClassificationFolder) -> Logger:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(run.path, name="", version="tensorboard", default_hp_metric=False)


def _wandb(run: ClassificationFolder) -> Logger:
    """Logger of Weights & Biases; ``WANDB_MODE=offline`` keeps its files in the run's folder."""
    from lightning.pytorch.loggers import WandbLogger

    place = run.path.resolve()
    folder = place / "wandb"
    folder.mkdir(exist_ok=True)
    number = hashlib.sha256(f"{place}\0{run.read().get('started')}".encode()).hexdigest()[:16]
    return WandbLogger(name=place.name, save_dir=folder, id=number, project="onelip")


LOGGERS: dict[str, Callable[[ClassificationFolder], Logger]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
"""What makes each logger, by the name of its package."""
