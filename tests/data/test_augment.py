"""Crops and flips against a slow search through all of them, image by image."""

import pickle

import pytest
import torch
import torch.nn.functional as F

from onelip.data import crop_and_flip
from onelip.errors import UsageError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def find(image, result, padding):
    """All (row offset, column offset, flipped) that turn ``image`` into ``result``."""
    _, height, width = image.shape
    padded = F.pad(image, [padding] * 4)
    ways = []
    for row in range(2 * padding + 1):
        for column in range(2 * padding + 1):
            crop = padded[:, row : row + height, column : column + width]
            ways += [(row, column, False)] * torch.equal(crop, result)
            ways += [(row, column, True)] * torch.equal(crop.flip(2), result)
    return ways


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_each_image_is_one_crop_of_itself(padding, flip):
    images = torch.rand(600, 3, 5, 4, generator=generator(1))
    results = crop_and_flip(padding, flip)(images, generator())
    found = [find(image, result, padding) for image, result in zip(images, results, strict=True)]
    assert {len(ways) for ways in found} == {1}
    drawn = {ways[0] for ways in found}
    assert len(drawn) == (2 * padding + 1) ** 2 * (2 if flip else 1)


def test_the_generator_decides():
    images = torch.rand(20, 1, 6, 6, generator=generator(1))
    augment = crop_and_flip(2, True)
    first, again, other = (augment(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_to_do():
    images = torch.rand(4, 1, 6, 6)
    assert torch.equal(crop_and_flip(0, False)(images, generator()), images)


def test_it_can_be_sent_to_another_process():
    images = torch.rand(4, 1, 6, 6)
    augment = crop_and_flip(1, True)
    copy = pickle.loads(pickle.dumps(augment))
    assert torch.equal(copy(images, generator()), augment(images, generator()))


def test_negative_padding():
    with pytest.raises(UsageError, match="padding -1 is negative"):
        crop_and_flip(-1, True)
