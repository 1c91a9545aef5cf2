"""Minibatches: one epoch is a function of the seed and the epoch."""

import pytest
import torch

from onelip.data import Batches, LabelledSet, crop_and_flip
from onelip.errors import UsageError

COUNT = 50
DATA = LabelledSet(
    torch.arange(COUNT * 16, dtype=torch.int64).remainder(251).byte().view(COUNT, 1, 4, 4),
    torch.arange(COUNT),
    COUNT,
)


def epoch(batches: Batches, number: int = 0):
    batches.set_epoch(number)
    return list(batches)


def same(first, second) -> bool:
    return all(
        torch.equal(a, b) and torch.equal(c, d)
        for (a, c), (b, d) in zip(first, second, strict=True)
    )


def test_images_are_floats_that_fit_their_labels():
    for images, labels in Batches(DATA, 7, seed=0):
        assert images.dtype == torch.float32
        assert torch.equal(images, DATA.inputs[labels].float() / 255)


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [20, 20]), (False, [20, 20, 10])])
def test_length(drop_last, sizes):
    batches = Batches(DATA, 20, seed=0, drop_last=drop_last)
    assert [len(labels) for _, labels in batches] == sizes
    assert len(batches) == len(sizes)


def test_every_image_comes_once():
    labels = torch.cat([labels for _, labels in Batches(DATA, 20, seed=3, drop_last=False)])
    assert sorted(labels.tolist()) == list(range(COUNT))
    assert labels.tolist() != list(range(COUNT))


def test_without_shuffling_the_order_is_kept():
    labels = torch.cat([labels for _, labels in Batches(DATA, 10, seed=3, shuffle=False)])
    assert labels.tolist() == list(range(COUNT))


def test_a_resumed_run_sees_the_same_epoch():
    def fresh() -> Batches:
        return Batches(DATA, 8, seed=5, augment=crop_and_flip(1, True))

    running = fresh()
    for number in range(3):
        epoch(running, number)
    third = epoch(running, 3)
    assert same(third, epoch(fresh(), 3))
    assert same(third, list(running))


def test_seeds_and_epochs_differ():
    orders = {
        tuple(torch.cat([y for _, y in epoch(Batches(DATA, 10, seed=seed), number)]).tolist())
        for seed in range(4)
        for number in range(4)
    }
    assert len(orders) == 16


def test_global_random_state_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    epoch(Batches(DATA, 10, seed=1, augment=crop_and_flip(1, True)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("drop_last", [True, False])
def test_ranks_share_the_batches_of_one_process(drop_last):
    whole = epoch(Batches(DATA, 12, seed=2, drop_last=drop_last), 1)
    parts = [
        epoch(Batches(DATA, 12, seed=2, rank=rank, world_size=3, drop_last=drop_last), 1)
        for rank in range(3)
    ]
    united = [
        tuple(torch.cat(tensors) for tensors in zip(*pieces, strict=True))
        for pieces in zip(*parts, strict=True)
    ]
    assert same(whole, united)
    assert {len(labels) for part in parts for _, labels in part[:4]} == {4}


def test_ranks_augment_differently():
    def noise(images, generator):
        return torch.rand(images.shape, generator=generator)

    first, second = (
        next(iter(Batches(DATA, 12, seed=2, rank=rank, world_size=2, augment=noise)))[0]
        for rank in range(2)
    )
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch size 0 is not positive"),
        ({"batch_size": 51}, "batch size 51 exceeds the 50 images: choose at most 50"),
        ({"batch_size": 10, "world_size": 3}, "batch size 10 is not divisible by 3 processes"),
        ({"batch_size": 10, "rank": 2, "world_size": 2}, r"rank 2 is outside 0\.\.1"),
        ({"batch_size": 10, "seed": -1}, "seed -1 is negative"),
    ],
)
def test_sizes_that_do_not_fit(arguments, message):
    with pytest.raises(UsageError, match=message):
        Batches(DATA, **{"seed": 0, **arguments})


def test_negative_epoch():
    with pytest.raises(UsageError, match="epoch -1 is negative"):
        Batches(DATA, 10, seed=0).set_epoch(-1)
