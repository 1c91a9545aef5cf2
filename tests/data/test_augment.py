"""Augmentation against slow searches and sums, image by image, pixel by pixel."""

import itertools
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from onelip.data import augmentation, crop_and_flip, rotate_and_translate
from onelip.data.augment import _rotate_and_shift
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


def moved_slowly(image, degrees, row, column):
    """Bilinear interpolation where each pixel of the turned, then shifted, image comes from."""
    _, height, width = image.shape
    result = torch.zeros_like(image)
    turn = complex(math.cos(math.radians(degrees)), math.sin(math.radians(degrees)))
    for y in range(height):
        for x in range(width):
            here = complex(x - column - (width - 1) / 2, y - row - (height - 1) / 2)
            source = here * turn + complex((width - 1) / 2, (height - 1) / 2)
            left, top = math.floor(source.real), math.floor(source.imag)
            for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
                share = (1 - abs(source.imag - i)) * (1 - abs(source.real - j))
                if 0 <= i < height and 0 <= j < width:
                    result[:, y, x] += share * image[:, i, j]
    return result


def test_moved_as_defined(each):
    for shape, (degrees, row, column) in each(
        itertools.product(
            [(1, 6, 6), (3, 7, 7), (2, 5, 8), (1, 9, 4)],
            [(0, 0, 0), (0, 2, -1), (90, 0, 0), (-30, 0, 0), (10, 1, 2), (77, -3, 1), (180, 0, -2)],
        )
    ):
        image = torch.rand(shape, generator=generator(1), dtype=torch.float64)
        angles = torch.deg2rad(torch.tensor([float(degrees)], dtype=torch.float64))
        offsets = torch.tensor([[row], [column]], dtype=torch.float64)
        found = _rotate_and_shift(image[None], angles, offsets[0], offsets[1])[0]
        torch.testing.assert_close(found, moved_slowly(image, degrees, row, column))


def test_turns_are_counterclockwise():
    image = torch.rand(1, 2, 6, 6, generator=generator(1))
    quarter, none = torch.tensor([math.pi / 2]), torch.zeros(1)
    torch.testing.assert_close(
        _rotate_and_shift(image, quarter, none, none), image.rot90(1, (2, 3))
    )


@pytest.mark.parametrize(("height", "width", "share"), [(10, 20, 0.2), (28, 28, 0.1), (5, 5, 1.0)])
def test_translations(height, width, share):
    """Whole pixels, each image its own, as far as the share of height and of width."""
    images = torch.zeros(1500, 1, 3 * height, 3 * width)
    images[:, :, height + height // 2, width + width // 2] = 1
    share = share / 3  # of a canvas three times as large, so that the point stays inside
    found = rotate_and_translate(0.0, share)(images, generator())
    count, _, rows, columns = found.round().nonzero().unbind(1)
    assert count.tolist() == list(range(1500))
    assert found.amax((1, 2, 3)).min() > 0.999
    for offsets, side in (
        (rows - height - height // 2, height),
        (columns - width - width // 2, width),
    ):
        most = round(3 * share * side)
        drawn = offsets.unique().tolist()
        assert drawn == list(range(-most, most + 1))
        assert abs(float(offsets.float().mean())) < most / 10
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) > 4 * share * height


@pytest.mark.parametrize("degrees", [10.0, 20.0, 180.0])
def test_rotations(degrees):
    """A slope seen turned tells the angle: bilinear interpolation of a slope is exact."""
    side = 33
    along = torch.arange(side, dtype=torch.float32) - side // 2
    images = torch.stack([along.expand(side, side)] * 1000)[:, None]
    found = rotate_and_translate(degrees, 0.0)(images, generator())
    middle = side // 2
    across = found[:, 0, middle, middle + 1] - found[:, 0, middle, middle - 1]
    down = found[:, 0, middle + 1, middle] - found[:, 0, middle - 1, middle]
    angles = torch.rad2deg(torch.atan2(-down, across))
    assert float(angles.abs().max()) <= degrees + 1e-3
    shares = torch.histc(angles, 10, -degrees, degrees) / len(angles)
    assert 0.05 < float(shares.min()) <= float(shares.max()) < 0.15  # uniform
    torch.testing.assert_close(found[:, 0, middle, middle], torch.zeros(1000), atol=1e-4, rtol=0)


def test_what_comes_from_outside_is_black():
    found = rotate_and_translate(45.0, 0.3)(torch.ones(200, 1, 12, 12), generator())
    assert float(found.min()) == 0
    assert float(found.max()) == pytest.approx(1, abs=1e-6)
    assert (found.amin((1, 2, 3)) == 0).float().mean() > 0.8


def test_rotations_and_translations_are_the_generators():
    images = torch.rand(20, 3, 8, 8, generator=generator(1))
    augment = rotate_and_translate(20.0, 0.2)
    first, again, other = (augment(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == images.shape
    assert first.dtype == images.dtype


def test_nothing_to_turn():
    images = torch.rand(4, 1, 7, 6)
    torch.testing.assert_close(rotate_and_translate(0.0, 0.0)(images, generator()), images)


def test_together():
    images = torch.rand(16, 3, 9, 9, generator=generator(1))
    one, two = generator(), generator()
    found = augmentation(crop=1, flip=True, rotate=10.0, translate=0.1)(images, one)
    turned = rotate_and_translate(10.0, 0.1)(images, two)
    assert torch.equal(found, crop_and_flip(1, True)(turned, two))
    assert torch.equal(one.get_state(), two.get_state())


def test_crops_and_flips_alone_are_what_they_were():
    """Runs of before repeat: nothing else is drawn from the generator."""
    images = torch.rand(16, 3, 9, 9, generator=generator(1))
    for crop, flip in ((4, True), (4, False), (0, True)):
        found = augmentation(crop=crop, flip=flip)(images, generator())
        assert torch.equal(found, crop_and_flip(crop, flip)(images, generator()))


def test_no_augmentation():
    assert augmentation() is None


def test_all_of_it_can_be_sent_to_another_process():
    images = torch.rand(4, 1, 6, 6)
    augment = augmentation(crop=1, flip=True, rotate=10.0, translate=0.1)
    copy = pickle.loads(pickle.dumps(augment))
    assert torch.equal(copy(images, generator()), augment(images, generator()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotate": -1.0}, "rotation by -1.0 degrees: choose 0 to 180"),
        ({"rotate": 181.0}, "rotation by 181.0 degrees"),
        ({"rotate": float("nan")}, "rotation by nan degrees"),
        ({"translate": -0.1}, "translation by -0.1 of the side: choose 0 to 1"),
        ({"translate": 1.5}, "translation by 1.5 of the side"),
        ({"crop": -1}, "padding -1 is negative"),
    ],
)
def test_numbers_outside_their_range(arguments, message):
    with pytest.raises(UsageError, match=message):
        augmentation(**arguments)
