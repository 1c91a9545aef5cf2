"""Holding out a validation set."""

import pytest
import torch

from onelip.data import LabelledSet, holdout
from onelip.errors import UsageError

DATA = LabelledSet(torch.arange(100, dtype=torch.uint8).view(100, 1, 1, 1), torch.arange(100), 100)


def test_parts_are_disjoint_and_complete():
    train, validation = holdout(DATA, 30, seed=1)
    assert (len(train), len(validation)) == (70, 30)
    assert sorted(train.labels.tolist() + validation.labels.tolist()) == list(range(100))
    assert torch.equal(train.inputs.flatten().long(), train.labels)


def test_the_seed_decides():
    first, again, other = (holdout(DATA, 30, seed)[1].labels for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [-1, 0, 100, 101])
def test_both_parts_need_images(size):
    with pytest.raises(UsageError, match=f"cannot hold out {size} of 100 images: choose 1 to 99"):
        holdout(DATA, size, seed=0)
