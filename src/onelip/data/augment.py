"""Augmentation of a whole batch at once, on its device."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from onelip.errors import UsageError


def crop_and_flip(padding: int, flip: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
    """Random crops after zero padding and, if ``flip``, random horizontal flips.

    The result is called with images of shape ``(n, channels, height, width)`` and a generator on
    their device. Each image gets its own offsets, uniform in ``0..2 * padding``, and is mirrored
    with probability one half.

    Raises:
        UsageError: If ``padding`` is negative.

    Example:
        >>> augment = crop_and_flip(padding=4, flip=True)
        >>> augment(torch.rand(8, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])
    """
    if padding < 0:
        raise UsageError(f"padding {padding} is negative: choose 0 or more")
    return functools.partial(_crop_and_flip, padding=padding, flip=flip)


def _crop_and_flip(
    images: Tensor, generator: torch.Generator, *, padding: int, flip: bool
) -> Tensor:
    count, channels, height, width = images.shape
    device = images.device

    def draw(below: int) -> Tensor:
        return torch.randint(below, (count, 1), generator=generator, device=device)

    rows = draw(2 * padding + 1) + torch.arange(height, device=device)
    columns = draw(2 * padding + 1) + torch.arange(width, device=device)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    padded = F.pad(images, (padding, padding, padding, padding))
    image = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
