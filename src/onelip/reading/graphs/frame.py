"""The axes of a file's tensors, and those of values.

A file's first axis is mostly a batch, whose inputs the network treats alike and apart: values then
leave it out. Where the network does anything else with it, the whole tensor is one input.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onelip.chains import Shape
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError, UsageError


class BatchError(UsageError):
    """The first axis is no batch of inputs that are treated alike and apart."""


@dataclass(frozen=True)
class Frame:
    """Which axes values have.

    Attributes:
        batch: size of the first axis, which values leave out; None if they have all axes.
    """

    batch: int | None

    def shape(self, value: Value) -> Shape:
        """Shape of the file's tensor."""
        return value.shape if self.batch is None else (self.batch, *value.shape)

    def axis(self, value: Value, axis: int, more: int = 0) -> int:
        """An axis of the file, counted as torch counts those of a batch of values.

        Args:
            value: the tensor.
            axis: as the file counts.
            more: axes that the file's tensor will have besides.

        Raises:
            BatchError: it is the batch.
            UsageError: there is no such axis.
        """
        count = len(self.shape(value)) + more
        if not -count <= axis < count:
            raise UsageError(f"axis {axis} of a tensor of {count} axes")
        place = axis % count
        if self.batch is None:
            return place + 1
        if place == 0:
            raise BatchError("works along the batch")
        return place

    def axes(self, value: Value, axes: Iterable[int] | None) -> list[int]:
        """Axes as ``axis`` returns them, ascending; all of them for None."""
        given = range(len(self.shape(value))) if axes is None else axes
        return sorted({self.axis(value, int(axis)) for axis in given})

    def moved(self, value: Value, move: Callable[[Tensor], Any]) -> Any:
        """Result of an operator that moves or repeats numbers, or puts zeros between them.

        Args:
            value: to which it is applied.
            move: the operator on a tensor of the file; it may return several.

        Returns:
            A value, or a list of them.

        Raises:
            BatchError: it does not do the same within each input of the batch.
        """
        whole = self.shape(value)
        places = torch.arange(1.0, 1 + torch.Size(whole).numel(), dtype=torch.float64)
        results = move(places.view(whole))
        if isinstance(results, (list, tuple)):
            return [self._placed(value, torch.as_tensor(result)) for result in results]
        return self._placed(value, torch.as_tensor(results))

    def _placed(self, value: Value, result: Tensor) -> Value:
        index = result.long() - 1
        total = torch.Size(self.shape(value)).numel()
        known = (index >= -1) & (index < total) & (index + 1 == result)
        if not bool(known.all()):
            raise UnboundedModuleError("does more than move numbers")
        if self.batch is None:
            return linear.placed(value, tuple(result.shape), index.flatten())
        if index.ndim < 1 or len(index) != self.batch:
            raise BatchError(f"makes the batch of {self.batch} another axis")
        size = total // self.batch
        rows = index.reshape(self.batch, -1)
        starts = size * torch.arange(self.batch)[:, None]
        if not torch.equal(rows, torch.where(rows[:1] >= 0, rows[:1] + starts, -1)):
            raise BatchError("mixes the inputs of the batch")
        return linear.placed(value, tuple(result.shape[1:]), rows[0])

    def broadcast(self, parts: Sequence[Value | Tensor]) -> list[Value | Tensor]:
        """Values and constants of one shape; constants only as large as they have to be.

        Raises:
            BatchError: a constant is not the same for each input of the batch.
        """
        shapes = [self.shape(part) if isinstance(part, Value) else part.shape for part in parts]
        try:
            target = torch.broadcast_shapes(*shapes)
        except RuntimeError as error:
            raise UsageError(f"shapes {[tuple(s) for s in shapes]} do not fit together") from error
        return [
            self._spread(part, target) if isinstance(part, Value) else self.row(part, target)
            for part in parts
        ]

    def _spread(self, value: Value, target: Sequence[int]) -> Value:
        if self.shape(value) == tuple(target):
            return value
        spread: Value = self.moved(value, lambda x: x.expand(*target))
        return spread

    def row(self, constant: Tensor, target: Sequence[int]) -> Tensor:
        """A constant without the axis of the batch.

        Args:
            constant: as the file has it.
            target: shape to which it is broadcast.

        Raises:
            BatchError: it is not the same for each input of the batch.
        """
        if self.batch is None or constant.ndim < len(target):
            return constant
        if not torch.equal(constant, constant[:1].expand_as(constant)):
            raise BatchError("adds other numbers to each input of the batch")
        return constant[0]


def as_images(frame: Frame, value: Value) -> tuple[Value, int]:
    """Several images of a whole tensor as one of more channels, and how many there were."""
    if frame.batch is not None:
        return value, 1
    if len(value.shape) < 2:
        raise UsageError(f"takes images with a first axis for the batch, got {value.shape}")
    copies, channels, *rest = value.shape
    return linear.reshaped(value, (copies * channels, *rest)), copies


def from_images(frame: Frame, value: Value, copies: int) -> Value:
    """Undo ``as_images``."""
    if frame.batch is not None:
        return value
    return linear.reshaped(value, (copies, value.shape[0] // copies, *value.shape[1:]))
