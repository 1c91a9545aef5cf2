"""One training run: data, model, trainer, weights."""

import contextlib
import logging
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from onelip.certificates import mlp_head
from onelip.data import DataSet
from onelip.errors import UsageError
from onelip.experiments.classification.build import build_loss, build_model, check_fit
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.classification.training.callbacks import (
    EpochCutError,
    History,
    Progress,
    TimeLimit,
)
from onelip.experiments.classification.training.classifier import Classifier
from onelip.experiments.classification.training.loggers import new_loggers
from onelip.experiments.own_code import prepare
from onelip.experiments.threads import use_threads
from onelip.image_sets import OWN
from onelip.layers import project
from onelip.models import MODELS


def train(
    run: ClassificationFolder,
    *,
    data: Path | None = None,
    max_minutes: float | None = None,
    progress: bool = True,
    log: Sequence[str] = (),
) -> bool:
    """Train the recipe of a run folder, from its checkpoint if there is one.

    Under ``torchrun`` every process calls this; they share each batch.

    Args:
        run: the folder; it gets a checkpoint after every epoch, and weights at the end.
        data: where the data are, if not where the record says, or instead of a download.
        max_minutes: stop after the last epoch that fits; an epoch that is longer is cut.
        progress: show a progress bar.
        log: loggers beside ``epochs.csv``: ``tensorboard``, ``wandb``.

    Returns:
        Whether the run is complete. If not, call again to go on.

    Raises:
        UsageError: the recipe or the data cannot be used.
        NonFiniteError: the loss became infinite or NaN; the last checkpoint stays.
    """
    recipe = run.recipe
    use_threads(recipe.threads)
    prepare(run.read().get("code", {}))
    found = run.data(data)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, found.info)
    if recipe.dataset == OWN or recipe.model not in MODELS:
        check_fit(model, found.info, recipe.model)
    _check_data(recipe, found)
    if recipe.certificate == "curvature":
        mlp_head(model)  # fail before training
    if recipe.projection_interval:
        project(model)
    if recipe.compile:
        model.compile()
    classifier = Classifier(model, build_loss(recipe), recipe, found)
    history, limit = History(run.path / "epochs.csv"), TimeLimit(max_minutes)
    trainer = _trainer(run, recipe, [history, limit], progress, log)
    checkpoint = _checked_checkpoint(run, classifier)
    if trainer.is_global_zero:
        run.note_session()
    try:
        with _interruptible(), _own_process_group():
            trainer.fit(classifier, ckpt_path=checkpoint)
    except EpochCutError as error:
        if not run.checkpoint.exists():
            raise UsageError(f"{error}: give more --max-minutes") from None
        with run.load_checkpoint() as content:
            assert content is not None
            classifier.load_state_dict(content["state_dict"])
        limit.reached = True
    complete = trainer.current_epoch >= recipe.epochs and not limit.reached
    if trainer.is_global_zero:
        _record(run, classifier, history, complete, found)
    return complete


def _record(
    run: ClassificationFolder,
    classifier: Classifier,
    history: History,
    complete: bool,
    data: DataSet,
) -> None:
    run.save_model(classifier.model)
    run.write(
        {
            "data": data.record(),
            "train": {
                "complete": complete,
                "processes": classifier.trainer.world_size,
                "epochs": history.epochs,
                "seconds": sum(epoch["seconds"] for epoch in history.epochs),
                "parameters": sum(p.numel() for p in classifier.model.parameters()),
            },
        }
    )


def _check_data(recipe: Recipe, data: DataSet) -> None:
    """Refuse a batch that is larger than the training split, and changes of rows as if images."""
    if len(data.train) < recipe.batch_size:
        raise UsageError(
            f"--batch_size {recipe.batch_size} exceeds {len(data.train)} training rows: choose at "
            "most that"
        )
    if data.info.columns and (recipe.crop or recipe.flip or recipe.rotate or recipe.translate):
        raise UsageError(
            "rows of a table are not moved: --crop 0 --flip false --rotate 0 --translate 0"
        )


def _trainer(
    run: ClassificationFolder,
    recipe: Recipe,
    callbacks: list[Callback],
    progress: bool,
    log: Sequence[str],
) -> L.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    checkpoint = ModelCheckpoint(
        run.path, run.checkpoint.stem, save_top_k=1, enable_version_counter=False
    )
    bar = [Progress()] if progress else []
    return L.Trainer(
        max_epochs=recipe.epochs,
        devices=local,
        num_nodes=processes // local,
        strategy="ddp" if processes > 1 else "auto",
        precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
        gradient_clip_val=run.recipe.clip_norm or None,
        callbacks=[*callbacks, checkpoint, *bar],
        logger=new_loggers(log, run) or False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        default_root_dir=run.path,
    )


def _checked_checkpoint(run: ClassificationFolder, classifier: Classifier) -> Path | None:
    """Return the checkpoint to continue from, if there is one."""
    with warnings.catch_warnings(action="ignore"), run.load_checkpoint() as content:
        if content is None:
            return None
        classifier.load_state_dict(content["state_dict"])
    return run.checkpoint


@contextlib.contextmanager
def _own_process_group() -> Iterator[None]:
    """End the process group that the trainer begins: its threads abort a process that exits."""
    before = dist.is_available() and dist.is_initialized()
    yield
    if not before and dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt; Lightning exits on it, and ignores every later one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None
