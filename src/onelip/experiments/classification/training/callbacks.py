"""Callbacks of a training: notes of each epoch, a time limit, one bar for the whole run."""

import csv
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from onelip.atomic_files import atomic_write
from onelip.experiments.progress import new_bar

_FIRST_STEPS = 5  # from which the length of an epoch is guessed


class History(Callback):
    """Metrics of each epoch; they travel in the checkpoint.

    Args:
        table: CSV file with a line for each epoch, of a resumed run too.
    """

    def __init__(self, table: Path | None = None) -> None:
        self.epochs: list[dict[str, float]] = []
        self._table = table
        self._start = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the metrics."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        metrics["seconds"] = round(time.perf_counter() - self._start, 3)
        self.epochs.append({name: metrics[name] for name in sorted(metrics)})
        if self._table is not None and trainer.is_global_zero:
            self._write(self._table)

    def _write(self, table: Path) -> None:
        names = sorted({name for epoch in self.epochs for name in epoch})
        with atomic_write(table) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", *names], lineterminator="\n")
            writer.writeheader()
            writer.writerows({"epoch": n, **epoch} for n, epoch in enumerate(self.epochs, 1))

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the epochs of a checkpoint."""
        self.epochs = list(state_dict["epochs"])


class EpochCutError(Exception):
    """Error of a training stopped in the middle of an epoch, which is lost."""

    def __init__(self, minutes: float) -> None:
        super().__init__(f"an epoch takes about {minutes:.1f} minutes")


class TimeLimit(Callback):
    """Stop after the last epoch that fits into the minutes of this process.

    An epoch that turns out longer is cut when the time is over, in a single process; the first
    steps say so if it is to be expected.
    """

    cuts = True

    def __init__(self, minutes: float | None) -> None:
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self.reached = False
        self._start = self._epoch = time.perf_counter()
        self._steps = 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the start of the epoch."""
        self._epoch, self._steps = time.perf_counter(), 0

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Warn in time, and stop in time.

        Raises:
            EpochCutError: the time is over, and not the epoch.
        """
        self._steps += 1
        now, steps = time.perf_counter(), int(trainer.num_training_batches)
        epoch = (now - self._epoch) / self._steps * steps
        if self._steps == _FIRST_STEPS and self._epoch + epoch > self._start + self.seconds:
            print(
                f"onelip: an epoch takes about {epoch / 60:.1f} minutes, and is lost when "
                f"--max-minutes {self.seconds / 60:g} is over",
                file=sys.stderr,
                flush=True,
            )
        over = now > self._start + self.seconds and self._steps < steps
        if over and self.cuts and trainer.world_size == 1:
            raise EpochCutError(epoch / 60)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if another epoch of this length would not fit."""
        now = time.perf_counter()
        late = now + (now - self._epoch) > self._start + self.seconds
        more = trainer.current_epoch + 1 < (trainer.max_epochs or 0)
        self.reached = trainer.strategy.reduce_boolean_decision(late and more, all=False)
        trainer.should_stop = trainer.should_stop or self.reached


class Progress(Callback):
    """Progress bar over all steps of the run, with the last metrics."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar."""
        if trainer.is_global_zero:
            steps = int(trainer.estimated_stepping_batches)
            self._bar = new_bar(trainer.global_step, steps)

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Advance the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the epoch's numbers."""
        if self._bar is not None:
            shown = {name: f"{float(v):.3f}" for name, v in trainer.callback_metrics.items()}
            self._bar.set_postfix(epoch=trainer.current_epoch + 1, **shown, refresh=False)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Close the bar, after an error too."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
