"""Lightning module of a recipe: a model, a loss, batches that depend on seed and epoch alone."""

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from onelip.data import Batches, DataSet, augmentation
from onelip.errors import NonFiniteError
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.classification.training.objectives import objective
from onelip.experiments.classification.training.schedule import SCHEDULES
from onelip.layers import computed_once, project

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}


class Classifier(L.LightningModule):
    """Lightning module that trains a model by a recipe.

    The order and the augmentation of an epoch are functions of the seed and the epoch, so a resumed
    run repeats what an uninterrupted one does, and ``world_size`` processes share each batch.
    """

    def __init__(self, model: nn.Module, loss: nn.Module, recipe: Recipe, data: DataSet) -> None:
        super().__init__()
        self.model, self.recipe = model, recipe
        self.train_set, self.held_out = data.train, data.validation
        self.objective = objective(loss, model, data.info.shape, recipe.constants)

    def train_dataloader(self) -> Batches:
        """Return the batches of the current epoch; the trainer asks again for each."""
        recipe = self.recipe
        augment = augmentation(
            crop=recipe.crop,
            flip=recipe.flip,
            rotate=recipe.rotate,
            translate=recipe.translate,
        )
        batches = Batches(
            self.train_set,
            recipe.batch_size,
            seed=recipe.seed,
            device=self.device,
            augment=augment,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
        )
        batches.set_epoch(self.current_epoch)
        return batches

    def val_dataloader(self) -> Batches:
        """Return the held-out images, in order, on every process."""
        return Batches(
            self.held_out, 1000, seed=0, device=self.device, shuffle=False, drop_last=False
        )

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Move the images once; batches of every epoch are views of them."""
        device = self.trainer.strategy.root_device
        self.train_set, self.held_out = self.train_set.to(device), self.held_out.to(device)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Return the loss of a batch.

        Raises:
            NonFiniteError: the loss is infinite or NaN.
        """
        images, labels = batch
        with computed_once(self.model):
            loss: Tensor = self.objective(self.model, images, labels, self.current_epoch)
        if not torch.isfinite(loss):
            kept = "; the epochs before it are kept in the run folder's checkpoint"
            raise NonFiniteError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}: train with a lower "
                f"--lr{kept if self.current_epoch else ''}"
            )
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        """Project the weights of layers that ask for it, every so many updates."""
        interval = self.recipe.projection_interval
        if interval and self.global_step % interval == 0:
            project(self.model)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Log the accuracy on held-out images."""
        images, labels = batch
        right = (self.model(images).argmax(1) == labels).double().mean()
        self.log("held_out_accuracy", right, batch_size=len(labels), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Return the recipe's optimizer and its schedule, advanced every step."""
        recipe = self.recipe
        optimizer = OPTIMIZERS[recipe.optimizer](
            _parameter_groups(self.model, recipe.weight_decay), lr=recipe.lr
        )
        steps, factor = len(self.train_dataloader()) * recipe.epochs, SCHEDULES[recipe.schedule]
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step / steps))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: weights decay, biases and other vectors do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
