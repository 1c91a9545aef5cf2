"""Labelled inputs in memory."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from onelip.errors import UsageError


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Inputs and labels of a split.

    Args:
        inputs: images as uint8 or as floats in [0, 1], shape ``(n, channels, height, width)``, or
            rows of a table, floats of shape ``(n, columns)``.
        labels: int64, shape ``(n,)``.
        classes: number of classes; labels lie in ``range(classes)``.
        note: caveat for results computed from this set, such as ``"CIFAR-10 (JPEG copy)"``; empty
            if there is none.

    Raises:
        UsageError: a type or a shape differs from these.
    """

    inputs: Tensor
    labels: Tensor
    classes: int
    note: str = ""

    def __post_init__(self) -> None:
        images = self.inputs.ndim == 4 and self.inputs.dtype == torch.uint8
        if not images and not (self.inputs.ndim in (2, 4) and self.inputs.is_floating_point()):
            raise UsageError(
                "inputs must be images, uint8 or floats of shape (n, channels, height, width), or "
                "rows of floats, (n, columns)"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.inputs.shape[:1]:
            raise UsageError("labels must be int64, one per input")

    @property
    def box(self) -> tuple[float, float] | None:
        """Interval in which all inputs lie; None for rows of a table."""
        return (0.0, 1.0) if self.inputs.ndim == 4 else None

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Self:
        """The set on another device."""
        return replace(self, inputs=self.inputs.to(device), labels=self.labels.to(device))

    def subset(self, indices: Tensor) -> Self:
        """Return the inputs at ``indices``, in that order."""
        return replace(self, inputs=self.inputs[indices], labels=self.labels[indices])


def as_floats(inputs: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return what a network gets: pixels in [0, 1], or numbers of a table as they are."""
    floats = inputs.to(dtype)
    return floats.div(255) if inputs.dtype == torch.uint8 else floats
