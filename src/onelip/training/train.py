"""One training run: data, model, trainer, weights."""

import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar

from onelip.data import holdout, load
from onelip.errors import UsageError
from onelip.losses import LOSSES
from onelip.recipes import Recipe
from onelip.training.classifier import Classifier
from onelip.training.run_folder import RunFolder, build_model


def train(
    run: RunFolder,
    *,
    data: Path | None = None,
    max_minutes: float | None = None,
    progress: bool = True,
) -> bool:
    """Train the recipe of a run folder, from its checkpoint if there is one.

    Under ``torchrun`` every process calls this; they share each batch.

    Args:
        run: the folder; it gets a checkpoint after every epoch, and weights at the end.
        data: folder of a data set in the hub's parquet layout, instead of a download.
        max_minutes: stop after the last epoch that fits.
        progress: show a progress bar.

    Returns:
        Whether the run is complete. If not, call again to go on.

    Raises:
        UsageError: the recipe or the data cannot be used.
        NonFiniteError: the loss became infinite or NaN; the last checkpoint stays.
    """
    recipe = run.recipe
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    if recipe.compile:
        model.compile()
    train_set, held_out = holdout(load(recipe.dataset, "train", data), recipe.validation, 0)
    if len(train_set) < recipe.batch_size:
        raise UsageError(f"--batch_size {recipe.batch_size} exceeds {len(train_set)} images")
    classifier = Classifier(model, build_loss(recipe), recipe, train_set, held_out)
    history, limit = History(), TimeLimit(max_minutes)
    trainer = _trainer(run, recipe, [history, limit], progress)
    try:
        trainer.fit(classifier, ckpt_path=run.checkpoint if run.checkpoint.exists() else None)
    except (EOFError, RuntimeError) as error:
        if not _is_corrupt_checkpoint(error):
            raise
        raise UsageError(f"{run.checkpoint} is corrupt: start again with another --out") from None
    complete = trainer.current_epoch >= recipe.epochs and not limit.reached
    if trainer.is_global_zero:
        _record(run, classifier, history, complete, train_set.note)
    return complete


def build_loss(recipe: Recipe) -> torch.nn.Module:
    """The loss of a recipe."""
    if recipe.loss not in LOSSES:
        raise UsageError(f"no loss {recipe.loss!r}; known: {', '.join(LOSSES)}")
    return LOSSES[recipe.loss](**recipe.objective)


def _record(
    run: RunFolder, classifier: Classifier, history: "History", complete: bool, note: str
) -> None:
    if complete:
        run.save_model(classifier.model)
    run.write(
        {
            "data": {"note": note, "train": len(classifier.train_set)},
            "train": {
                "complete": complete,
                "processes": classifier.trainer.world_size,
                "epochs": history.epochs,
                "seconds": sum(epoch["seconds"] for epoch in history.epochs),
                "parameters": sum(p.numel() for p in classifier.model.parameters()),
            },
        }
    )


def _trainer(
    run: RunFolder, recipe: Recipe, callbacks: list[Callback], progress: bool
) -> L.Trainer:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    processes = int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    checkpoint = ModelCheckpoint(
        run.path, run.checkpoint.stem, save_top_k=1, enable_version_counter=False
    )
    bar = [TQDMProgressBar()] if progress else []
    return L.Trainer(
        max_epochs=recipe.epochs,
        devices=local,
        num_nodes=processes // local,
        strategy="ddp" if processes > 1 else "auto",
        precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
        callbacks=[*callbacks, checkpoint, *bar],
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        default_root_dir=run.path,
    )


def _is_corrupt_checkpoint(error: Exception) -> bool:
    return any(word in str(error) for word in ("zip archive", "Ran out of input", "unpickl"))


class History(Callback):
    """What each epoch gave; it travels in the checkpoint."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note the metrics."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics["seconds"] = round(time.perf_counter() - self._start, 3)
        self.epochs.append({name: metrics[name] for name in sorted(metrics)})

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.epochs = list(state_dict["epochs"])


class TimeLimit(Callback):
    """Stops after the last epoch that fits into the time of this process."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self.reached = False
        self._start = time.perf_counter()
        self._epoch = self._start

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Note when the epoch began."""
        self._epoch = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Stop if another epoch of this length would not fit."""
        now = time.perf_counter()
        late = now + (now - self._epoch) > self._start + self.seconds
        more = trainer.current_epoch + 1 < (trainer.max_epochs or 0)
        self.reached = trainer.strategy.reduce_boolean_decision(late and more, all=False)
        trainer.should_stop = trainer.should_stop or self.reached
