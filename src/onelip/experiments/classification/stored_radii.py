"""Stored radii of a run, as ``certify`` writes them."""

import math
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from onelip.errors import UsageError
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.image_sets import DataInfo

FILE = "certificates.safetensors"


@dataclass(frozen=True, eq=False)
class StoredRadii:
    """Radii, predictions and labels of all test samples of a run.

    Attributes:
        radius: ``(n,)`` floats, at most the diagonal of the cube that all images lie in.
        prediction: ``(n,)`` int64.
        labels: ``(n,)`` int64.
        of_product: radii by the product of norms, where they are stored beside.
    """

    radius: Tensor
    prediction: Tensor
    labels: Tensor
    of_product: Tensor | None = None

    @property
    def right(self) -> Tensor:
        """Mask of right predictions."""
        return self.prediction == self.labels


def stored_radii(run: ClassificationFolder) -> StoredRadii:
    """Read the radii of a run.

    Raises:
        UsageError: the run is not certified yet, or the file is corrupt.
    """
    path, info = run.path / FILE, run.info
    try:
        stored = safetensors.torch.load_file(path)
        found = StoredRadii(
            _radii(stored["radius"], info),
            stored["prediction"],
            stored["labels"],
            _radii(stored["radius_of_product"], info) if "radius_of_product" in stored else None,
        )
    except FileNotFoundError:
        raise UsageError(f"{run.path} is not certified yet: onelip certify {run.path}") from None
    except (safetensors.SafetensorError, KeyError, RuntimeError, ValueError):
        raise UsageError(f"{path} is corrupt: onelip certify {run.path}") from None
    if not _fit(found, len(info.classes)):
        raise UsageError(f"{path} is corrupt: onelip certify {run.path}")
    return found


def largest(info: DataInfo) -> float:
    """Return the largest distance of two inputs, infinite for tables."""
    return math.inf if info.box is None else math.prod(info.shape) ** 0.5


def _radii(values: Tensor, info: DataInfo) -> Tensor:
    """Return radii, at most the diagonal of the cube of images."""
    if not values.is_floating_point() or not bool((values >= 0).all()):
        raise ValueError("these are no radii")
    return values.clamp(max=largest(info))


def _fit(found: StoredRadii, classes: int) -> bool:
    """Check whether there is one of each for each sample, and that classes are classes."""
    count = found.radius.numel()
    of_samples = [found.radius, found.prediction, found.labels, found.of_product]
    one_each = all(values.shape == (count,) for values in of_samples if values is not None)
    numbers = (found.prediction, found.labels)
    known = all(v.dtype == torch.int64 and bool(((v >= 0) & (v < classes)).all()) for v in numbers)
    return count > 0 and one_each and known
