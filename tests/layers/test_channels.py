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


@pytest.mark.parametrize("sides", [(6,), (4, 6), (2, 4, 6)])
@pytest.mark.parametrize("batch", [0, 2])
def test_up_and_down_undo_each_other(sides, batch):
    x = torch.randn(batch, 3, *sides)
    down, up = layers.InvertibleDownsampling(2), layers.InvertibleUpsampling(2)
    assert down(x).shape == (batch, 3 * 2 ** len(sides), *(side // 2 for side in sides))
    assert torch.equal(up(down(x)), x)
    if len(sides) == 2 and batch:
        image = torch.randn(2, 8, 3, 1)
        assert torch.equal(up(image), nn.PixelShuffle(2)(image))


def test_blocks_that_do_not_fit():
    with pytest.raises(ValueError, match="do not divide an input"):
        layers.InvertibleDownsampling(2)(torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match="5 channels do not fill blocks of side 2"):
        layers.InvertibleUpsampling(2)(torch.zeros(1, 5, 2, 2))
    for kind in (layers.InvertibleDownsampling, layers.InvertibleUpsampling):
        with pytest.raises(ValueError, match="block_size must be positive"):
            kind(0)
        with pytest.raises(ValueError, match="input of"):
            kind(2)(torch.zeros(1, 4))


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 2, 3), (6, 2, 1, 2)])
def test_channels_are_shuffled_as_those_of_torch(shape):
    x = torch.randn(2, *shape)
    expected = nn.ChannelShuffle(3)(x.view(2, 6, -1)).view_as(x)
    assert torch.equal(layers.ChannelShuffle(3)(x), expected)
    with pytest.raises(ValueError, match="groups=4 must divide 6 channels"):
        layers.ChannelShuffle(4)(x)
    with pytest.raises(ValueError, match="groups must be positive"):
        layers.ChannelShuffle(0)
