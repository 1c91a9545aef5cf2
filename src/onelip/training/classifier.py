"""The Lightning module: a model, a loss, Adam, and batches that depend on seed and epoch alone."""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from onelip.data import Batches, ImageSet, crop_and_flip
from onelip.errors import NonFiniteError
from onelip.layers import computed_once
from onelip.recipes import Recipe
from onelip.training.schedule import piecewise_triangular


class Classifier(L.LightningModule):
    """Trains a model by a recipe.

    The order and the augmentation of an epoch are functions of the seed and the epoch, so a resumed
    run repeats what an uninterrupted one does, and ``world_size`` processes share each batch.
    """

    def __init__(
        self, model: nn.Module, loss: nn.Module, recipe: Recipe, train: ImageSet, held_out: ImageSet
    ) -> None:
        super().__init__()
        self.model, self.loss, self.recipe = model, loss, recipe
        self.train_set, self.held_out = train, held_out

    def train_dataloader(self) -> Batches:
        """Batches of the current epoch; the trainer asks again for each."""
        recipe = self.recipe
        augment = crop_and_flip(recipe.crop, recipe.flip) if recipe.crop or recipe.flip else None
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
        """The held-out images, in order, on every process."""
        return Batches(
            self.held_out, 1000, seed=0, device=self.device, shuffle=False, drop_last=False
        )

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Move the images once; batches of every epoch are views of them."""
        device = self.trainer.strategy.root_device
        self.train_set, self.held_out = self.train_set.to(device), self.held_out.to(device)

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """The loss of a batch.

        Raises:
            NonFiniteError: the loss is infinite or NaN.
        """
        images, labels = batch
        with computed_once(self.model):
            logits = self.model(images).float()
        loss: Tensor = self.loss(logits, labels)
        if not torch.isfinite(loss):
            kept = "; the epochs before it are kept in the run folder's checkpoint"
            raise NonFiniteError(
                f"the loss is {loss.item()} in epoch {self.current_epoch + 1}: train with a lower "
                f"--lr{kept if self.current_epoch else ''}"
            )
        self.log("loss", loss, on_step=False, on_epoch=True, sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Accuracy on held-out images."""
        images, labels = batch
        right = (self.model(images).argmax(1) == labels).double().mean()
        self.log("held_out_accuracy", right, batch_size=len(labels), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """Adam under the piecewise triangular schedule, moved every step."""
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.recipe.lr)
        steps = len(self.train_dataloader()) * self.recipe.epochs
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: piecewise_triangular(step / steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
