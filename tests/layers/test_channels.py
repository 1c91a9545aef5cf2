"""Channels that are added, left out and rearranged."""

import pytest
import torch
from torch import nn

from onelip import layers


def test_zero_padding_and_truncation_undo_each_other():
    x = torch.randn(2, 3, 4, 5)
    padded = layers.ZeroPadChannels(7)(x)
    assert padded.shape == (2, 7, 4, 5)
    assert bool((padded[:, 3:] == 0).all())
    assert torch.equal(layers.TruncateChannels(3)(padded), x)
    assert torch.equal(layers.TruncateChannels(2)(x), x[:, :2])


@pytest.mark.parametrize("layer", [layers.ZeroPadChannels(3), layers.TruncateChannels(3)], ids=repr)
def test_as_many_channels_change_nothing(layer):
    x = torch.randn(2, 3)
    assert torch.equal(layer(x), x)


def test_channels_that_do_not_fit():
    with pytest.raises(ValueError, match="4 channels do not fit into 3"):
        layers.ZeroPadChannels(3)(torch.ones(1, 4))
    with pytest.raises(ValueError, match="2 channels, fewer than 3"):
        layers.TruncateChannels(3)(torch.ones(1, 2))


def test_downsampling_keeps_every_pixel():
    x = torch.arange(2 * 4 * 6.0).view(1, 2, 4, 6)
    y = layers.InvertibleDownsampling(2)(x)
    assert y.shape == (1, 8, 2, 3)
    assert torch.equal(nn.functional.pixel_shuffle(y, 2), x)
    assert float(y.norm()) == float(x.norm())
    with pytest.raises(RuntimeError, match="divisible"):
        layers.InvertibleDownsampling(3)(x)
