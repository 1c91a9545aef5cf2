"""Minibatches from memory, with one permutation and one random stream per epoch."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from onelip.data.augment import Augment
from onelip.data.labelled_set import LabelledSet, as_floats
from onelip.errors import UsageError

_ORDER, _AUGMENT = 0, 1  # independent random streams


class Batches:
    """Minibatches of (inputs, labels): pixels as floats in [0, 1], or rows of a table.

    The order and the augmentation of an epoch depend only on ``seed`` and the epoch, so that a
    resumed run gets the same batches as an uninterrupted one. Iterating twice without `set_epoch`
    gives the same epoch twice. The order is the same on every device.

    With several processes each takes its own slice of the same batch, and its own stream of
    random numbers for the augmentation.

    Args:
        data: The inputs; pixels stay uint8 on the device.
        batch_size: Size of the batch over all processes together.
        seed: Non-negative seed of the order and of the augmentation.
        device: Device of images and labels.
        shuffle: Draw a new order for every epoch; otherwise keep the order of ``data``.
        augment: Called with the float images of a batch and a generator on their device.
        rank: Index of this process.
        world_size: Number of processes.
        drop_last: Leave out a last incomplete batch. If it is kept, processes get slices of it
            that differ by at most one image (none, for some, if it has fewer than there are
            processes).

    Raises:
        UsageError: If the sizes do not fit together.
    """

    def __init__(
        self,
        data: LabelledSet,
        batch_size: int,
        *,
        seed: int,
        device: torch.device | str = "cpu",
        shuffle: bool = True,
        augment: Augment | None = None,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        _check_sizes(len(data), batch_size, drop_last=drop_last)
        _check_ranks(batch_size, rank, world_size)
        if seed < 0:
            raise UsageError(f"seed {seed} is negative: choose 0 or more")
        self._inputs = data.inputs.to(device)
        self._labels = data.labels.to(device)
        self._batch_size, self._drop_last = batch_size, drop_last
        self._seed, self._shuffle, self._augment = seed, shuffle, augment
        self._rank, self._world_size = rank, world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration runs through."""
        if epoch < 0:
            raise UsageError(f"epoch {epoch} is negative: choose 0 or more")
        self._epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(len(self._labels), self._batch_size)
        return full + int(rest > 0 and not self._drop_last)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order()
        generator = self._generator(_AUGMENT, self._rank, device=self._inputs.device)
        for index in range(len(self)):
            batch = order[index * self._batch_size : (index + 1) * self._batch_size]
            rows = batch.tensor_split(self._world_size)[self._rank]
            inputs = as_floats(self._inputs[rows])
            if self._augment is not None:
                inputs = self._augment(inputs, generator)
            yield inputs, self._labels[rows]

    def _order(self) -> Tensor:
        """Order of the images in this epoch."""
        count, device = len(self._labels), self._inputs.device
        if not self._shuffle:
            return torch.arange(count, device=device)
        # drawn on the CPU: the same order on every device
        return torch.randperm(count, generator=self._generator(_ORDER)).to(device)

    def _generator(self, *stream: int, device: torch.device | str = "cpu") -> torch.Generator:
        """Generator of random numbers that are independent for every (seed, epoch, stream)."""
        mixed = np.random.SeedSequence((self._seed, self._epoch, *stream))
        # 63 bits: torch reads seeds as signed integers
        seed = int(mixed.generate_state(1, np.uint64)[0]) >> 1
        return torch.Generator(device).manual_seed(seed)


def _check_sizes(count: int, batch_size: int, *, drop_last: bool) -> None:
    """Refuse a batch size below 1, or one that leaves no batch."""
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size} is not positive: choose 1 or more")
    if drop_last and batch_size > count:
        raise UsageError(
            f"batch size {batch_size} exceeds the {count} images: choose at most {count}"
        )


def _check_ranks(batch_size: int, rank: int, world_size: int) -> None:
    """Refuse a rank outside the processes, or a batch that they cannot share equally."""
    if not 0 <= rank < world_size:
        raise UsageError(f"rank {rank} is outside 0..{world_size - 1}: check world_size")
    if batch_size % world_size:
        raise UsageError(
            f"batch size {batch_size} is not divisible by {world_size} processes: "
            f"choose a multiple of {world_size}"
        )
