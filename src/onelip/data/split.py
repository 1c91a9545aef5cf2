"""Random split into a training and a validation set."""

import torch

from onelip.data.datasets import ImageSet
from onelip.errors import UsageError


def holdout(data: ImageSet, size: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Split ``data`` at random into (train, validation).

    Args:
        data: The images to split.
        size: Number of images in the validation set.
        seed: The same seed gives the same split; both parts keep the order of ``data``.

    Raises:
        UsageError: If ``size`` leaves one part empty.
    """
    if not 0 < size < len(data):
        raise UsageError(
            f"cannot hold out {size} of {len(data)} images: choose 1 to {len(data) - 1}"
        )
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    validation, train = (rows.sort().values for rows in (order[:size], order[size:]))
    return data.subset(train), data.subset(validation)
