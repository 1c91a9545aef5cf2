"""Random augmentation of a whole batch of images at once, on its device."""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from onelip.errors import UsageError

Augment = Callable[[Tensor, torch.Generator], Tensor]


def augmentation(
    *, crop: int = 0, flip: bool = False, rotate: float = 0.0, translate: float = 0.0
) -> Augment | None:
    """Return the augmentation: rotations, translations, crops, flips; None if none is asked.

    See `rotate_and_translate` and `crop_and_flip`, which are called with the same generator.

    Raises:
        UsageError: If a number is outside its range.

    Example:
        >>> augment = augmentation(flip=True, rotate=10.0, translate=0.1)
        >>> augment(torch.rand(8, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 32, 32])
    """
    steps: list[Augment] = []
    if rotate or translate:
        steps.append(rotate_and_translate(rotate, translate))
    if crop or flip:
        steps.append(crop_and_flip(crop, flip))
    return functools.partial(_in_turn, steps=steps) if steps else None


def crop_and_flip(padding: int, flip: bool) -> Augment:
    """Return random crops after zero padding and, if ``flip``, random horizontal flips.

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


def rotate_and_translate(degrees: float, share: float) -> Augment:
    """Return random rotations about the centre, then random translations by whole pixels.

    Each image gets its own angle, uniform in ``-degrees..degrees``, and its own offsets, uniform in
    ``-share..share`` of height and of width and rounded. Pixels are interpolated bilinearly; those
    from outside the image are 0.

    Raises:
        UsageError: If ``degrees`` is outside 0 to 180, or ``share`` outside 0 to 1.

    Example:
        >>> augment = rotate_and_translate(20.0, 0.2)
        >>> augment(torch.rand(8, 3, 64, 64), torch.Generator().manual_seed(0)).shape
        torch.Size([8, 3, 64, 64])
    """
    if not 0 <= degrees <= 180:
        raise UsageError(f"rotation by {degrees} degrees: choose 0 to 180")
    if not 0 <= share <= 1:
        raise UsageError(f"translation by {share} of the side: choose 0 to 1")
    return functools.partial(_rotate_and_translate, degrees=degrees, share=share)


def _crop_and_flip(
    images: Tensor, generator: torch.Generator, *, padding: int, flip: bool
) -> Tensor:
    """Crop a padded batch at random offsets, and mirror each image with probability one half."""
    count, channels, height, width = images.shape
    device = images.device

    def draw(below: int) -> Tensor:
        return torch.randint(below, (count, 1), generator=generator, device=device)

    rows = draw(2 * padding + 1) + torch.arange(height, device=device)
    columns = draw(2 * padding + 1) + torch.arange(width, device=device)
    if flip:
        columns = torch.where(draw(2) == 1, columns.flip(1), columns)
    # one gather for the whole batch: rows and columns of each image by index
    padded = F.pad(images, (padding, padding, padding, padding))
    image = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _rotate_and_translate(
    images: Tensor, generator: torch.Generator, *, degrees: float, share: float
) -> Tensor:
    """Draw one angle and two offsets per image, and apply them."""
    count, _, height, width = images.shape
    drawn = 2 * torch.rand(3, count, generator=generator, device=images.device) - 1
    angles = torch.deg2rad(degrees * drawn[0])
    return _rotate_and_shift(
        images, angles, (share * height * drawn[1]).round(), (share * width * drawn[2]).round()
    )


def _rotate_and_shift(images: Tensor, angles: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rotate each image counterclockwise by its angle, then shift it down and to the right."""
    height, width = images.shape[2:]
    cos, sin = angles.cos(), angles.sin()
    # Where each pixel comes from, in halves of the width and of the height from the centre.
    right, down = 2 * columns / width, 2 * rows / height
    ratio = height / width
    source = [
        [cos, -sin * ratio, -cos * right + sin * ratio * down],
        [sin / ratio, cos, -sin / ratio * right - cos * down],
    ]
    theta = torch.stack([torch.stack(row, 1) for row in source], 1).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def _in_turn(images: Tensor, generator: torch.Generator, *, steps: Sequence[Augment]) -> Tensor:
    """Apply several augmentations in turn, with the same generator."""
    for step in steps:
        images = step(images, generator)
    return images
