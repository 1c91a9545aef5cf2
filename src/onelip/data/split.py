"""Random splits of a set in two."""

import torch
from torch import Tensor

from onelip.data.labelled_set import LabelledSet
from onelip.errors import UsageError


def holdout(data: LabelledSet, size: int, seed: int) -> tuple[LabelledSet, LabelledSet]:
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


def by_class(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows at random into (kept, held out), the same share of each class held out.

    Args:
        labels: of the rows.
        size: number of rows to hold out; each class keeps at least one.
        seed: the same seed gives the same split; both parts are in ascending order.

    Raises:
        UsageError: ``size`` leaves nothing of one part, or of a class.

    Example:
        >>> by_class(torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2]), 3, seed=0)[1]
        tensor([1, 4, 7])
    """
    total, counts = len(labels), torch.bincount(labels)
    most = total - int((counts > 0).sum())
    if not 0 < size <= most:
        choice = f"choose 1 to {most}" if most else "each class needs two"
        raise UsageError(f"cannot hold out {size} of {total}, one of each class kept: {choice}")
    generator = torch.Generator().manual_seed(seed)
    order, ties = (torch.randperm(total, generator=generator) for _ in range(2))
    grouped = order[labels[order].sort(stable=True).indices]
    places = torch.cat([torch.arange(count) for count in counts.tolist()])
    lengths = counts[labels[grouped]]
    # what is drawn first of a class has the smallest share of it before it
    share = torch.where(places < lengths - 1, (places + 0.5) / lengths, torch.inf)
    held = torch.zeros(total, dtype=torch.bool)
    held[grouped[ties[share[ties].sort(stable=True).indices[:size]]]] = True
    return (~held).nonzero().flatten(), held.nonzero().flatten()
