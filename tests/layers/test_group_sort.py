"""Sorting groups of channels."""

import pytest
import torch

from onelip import layers


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 2, 3)], ids=str)
def test_without_a_size_all_channels_are_sorted(shape):
    x = torch.randn(3, *shape)
    assert torch.equal(layers.GroupSort(None)(x), x.sort(1).values)
    assert torch.equal(layers.MaxMin()(x[:, :2]), x[:, :2].sort(1, descending=True).values)


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_group_sort_sorts_each_group(size):
    x = torch.randn(2, 6, 3)
    y = layers.GroupSort(size)(x)
    for start in range(0, 6, size):
        assert torch.equal(y[:, start : start + size], x[:, start : start + size].sort(1).values)


def test_max_min_is_a_descending_sort_of_pairs():
    x = torch.randn(3, 6, 2, 2)
    y = layers.MaxMin()(x)
    for start in (0, 2, 4):
        pair = x[:, start : start + 2].sort(1, descending=True).values
        assert torch.equal(y[:, start : start + 2], pair)


def test_sorting_keeps_norms():
    x = torch.randn(4, 6)
    for layer in (layers.MaxMin(), layers.GroupSort(3)):
        assert torch.allclose(layer(x).norm(dim=1), x.norm(dim=1))


def test_channels_that_do_not_divide():
    with pytest.raises(ValueError, match="5 channels do not divide into groups of 2"):
        layers.MaxMin()(torch.ones(1, 5))
    with pytest.raises(ValueError, match="4 channels do not divide into groups of 3"):
        layers.GroupSort(3)(torch.ones(1, 4))
    with pytest.raises(ValueError, match="group_size must be positive, got 0"):
        layers.GroupSort(0)
