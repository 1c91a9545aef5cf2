"""1-Lipschitz changes of the number of channels or of the size of an image."""

import torch
from torch import Tensor
from torch.nn import functional as F

from onelip.chains.linear_layers import moved
from onelip.chains.value import Value
from onelip.errors import keep_old_names
from onelip.forward_error import Local, Run
from onelip.forward_error import moved as no_error
from onelip.lipschitz import LipschitzModule


class ZeroPadChannels(LipschitzModule):
    """Append channels of zeros.

    Bound: 1, an isometry.
    Shape: ``(batch, channels, ...)`` to ``(batch, out_channels, ...)``.
    Cost: a copy.

    Args:
        out_channels: channels of the output, at least those of the input.

    Raises:
        ValueError: in ``forward``, an input of more channels.

    Example:
        >>> ZeroPadChannels(3)(torch.ones(1, 2))
        tensor([[1., 1., 0.]])

    Reference: Meunier et al., 2022, section 4.2.
    """

    same_in_float64 = True

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Pad dimension 1 with zeros."""
        missing = self.out_channels - x.shape[1]
        if missing < 0:
            raise ValueError(f"{x.shape[1]} channels do not fit into {self.out_channels}")
        return F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a map that moves numbers."""
        return moved(value, self)

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)


class TruncateChannels(LipschitzModule):
    """Keep the first channels (or features) and drop the rest.

    Bound: 1, a projection.
    Shape: ``(batch, channels, ...)`` to ``(batch, out_channels, ...)``.
    Cost: none, a view.

    Args:
        out_channels: channels of the output, at most those of the input.

    Raises:
        ValueError: in ``forward``, an input of fewer channels.

    Example:
        >>> TruncateChannels(2)(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 2.]])

    Reference: Meunier et al., 2022, section 4.2.
    """

    same_in_float64 = True

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Truncate dimension 1."""
        if x.shape[1] < self.out_channels:
            raise ValueError(f"{x.shape[1]} channels, fewer than {self.out_channels}")
        return x[:, : self.out_channels]

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a map that moves numbers."""
        return moved(value, self)

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)


def per_channel(bias: Tensor, channels: int) -> Tensor:
    """Return one number per channel, in a shape that can be added to images.

    Raises:
        ValueError: another number of channels: the sum would repeat an image of one channel.
    """
    if bias.shape != (channels,):
        raise ValueError(f"a bias of shape {tuple(bias.shape)} for {channels} channels")
    return bias[:, None, None]


def unshuffled(x: Tensor, block_size: int) -> Tensor:
    """Move the pixels of each block into channels; torch gives an empty batch a wrong shape."""
    if x.numel():
        return F.pixel_unshuffle(x, block_size)
    count, channels, height, width = x.shape
    sides = height // block_size, width // block_size
    return x.reshape(count, channels * block_size**2, *sides)


class InvertibleDownsampling(LipschitzModule):
    """Move the pixels of each block into channels, as ``nn.PixelUnshuffle`` does.

    Bound: 1, an isometry.
    Shape: ``(batch, c, h, w)`` to ``(batch, c block_size^2, h / block_size, w / block_size)``.
    Cost: a copy.

    Args:
        block_size: side of a block; it must divide the image's sides.

    Example:
        >>> InvertibleDownsampling(2)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 12, 4, 4])

    Reference: Jacobsen, Smeulders, Oyallon, "i-RevNet", ICLR 2018.
    """

    same_in_float64 = True

    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.block_size = block_size

    def forward(self, x: Tensor) -> Tensor:
        """Move the pixels of each block into channels."""
        return unshuffled(x, self.block_size)

    def lipschitz_bound(self) -> Tensor:
        """Return 1."""
        return torch.ones((), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a map that moves numbers."""
        return moved(value, self)

    def forward_error(self, run: Run) -> Local:
        """No error: nothing is rounded."""
        return no_error(self, run)


keep_old_names(__name__, {"FirstChannels": "onelip.layers.TruncateChannels"})
