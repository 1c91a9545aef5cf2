"""1-Lipschitz changes of the number of channels or of the size of an image."""

from torch import Tensor
from torch.nn import functional as F

from onelip.errors import keep_old_names
from onelip.layers.moving import MovedNumbers


class ZeroPadChannels(MovedNumbers):
    """Append channels of zeros.

    Bound: 1, an isometry.
    Shape: ``(batch, channels, ...)`` to ``(batch, out_channels, ...)``.
    Cost: a copy.

    Args:
        out_channels: channels of the output, at least those of the input.

    Raises:
        ValueError: in ``forward``, an input of more channels.

    Example:
        >>> import torch
        >>> ZeroPadChannels(3)(torch.ones(1, 2))
        tensor([[1., 1., 0.]])

    Reference: Meunier et al., 2022, section 4.2.
    """

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Pad dimension 1 with zeros."""
        missing = self.out_channels - x.shape[1]
        if missing < 0:
            raise ValueError(f"{x.shape[1]} channels do not fit into {self.out_channels}")
        return F.pad(x, (0, 0) * (x.ndim - 2) + (0, missing))


class TruncateChannels(MovedNumbers):
    """Keep the first channels (or features) and drop the rest.

    Bound: 1, a projection.
    Shape: ``(batch, channels, ...)`` to ``(batch, out_channels, ...)``.
    Cost: none, a view.

    Args:
        out_channels: channels of the output, at most those of the input.

    Raises:
        ValueError: in ``forward``, an input of fewer channels.

    Example:
        >>> import torch
        >>> TruncateChannels(2)(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 2.]])

    Reference: Meunier et al., 2022, section 4.2.
    """

    def __init__(self, out_channels: int) -> None:
        super().__init__()
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """Truncate dimension 1."""
        if x.shape[1] < self.out_channels:
            raise ValueError(f"{x.shape[1]} channels, fewer than {self.out_channels}")
        return x[:, : self.out_channels]


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
    if x.numel() and x.ndim == 4:
        return F.pixel_unshuffle(x, block_size)
    count, channels, *sides = x.shape
    if not sides or any(side % block_size for side in sides):
        raise ValueError(f"blocks of side {block_size} do not divide an input of {tuple(x.shape)}")
    axes = range(2, 2 + 2 * len(sides), 2)
    blocks = x.reshape(
        count, channels, *(n for side in sides for n in (side // block_size, block_size))
    )
    turned = blocks.permute(0, 1, *(axis + 1 for axis in axes), *axes)
    return turned.reshape(
        count, channels * block_size ** len(sides), *(side // block_size for side in sides)
    )


def shuffled_back(x: Tensor, block_size: int) -> Tensor:
    """Move channels into the pixels of blocks: the inverse of ``unshuffled``.

    Raises:
        ValueError: channels that do not fill whole blocks.
    """
    count, channels, *sides = x.shape
    if not sides or channels % block_size ** len(sides):
        raise ValueError(
            f"{channels} channels do not fill blocks of side {block_size} of an input of "
            f"{tuple(x.shape)}"
        )
    if x.numel() and x.ndim == 4:
        return F.pixel_shuffle(x, block_size)
    kept, axes = channels // block_size ** len(sides), len(sides)
    blocks = x.reshape(count, kept, *[block_size] * axes, *sides)
    order = [axis for i in range(axes) for axis in (2 + axes + i, 2 + i)]
    return blocks.permute(0, 1, *order).reshape(count, kept, *(block_size * n for n in sides))


def _block(block_size: int) -> int:
    """Return the side of a block, if it is positive."""
    if block_size < 1:
        raise ValueError(f"block_size must be positive, got {block_size}")
    return block_size


class InvertibleDownsampling(MovedNumbers):
    """Move the pixels of each block into channels, as ``nn.PixelUnshuffle`` does.

    Bound: 1, an isometry.
    Shape: ``(batch, c, h, w)`` to ``(batch, c block_size^2, h / block_size, w / block_size)``;
        sequences and volumes likewise, with as many factors as axes.
    Cost: a copy.

    Args:
        block_size: side of a block; it must divide the image's sides.

    Raises:
        ValueError: a block_size below 1.

    Example:
        >>> import torch
        >>> InvertibleDownsampling(2)(torch.zeros(1, 3, 8, 8)).shape
        torch.Size([1, 12, 4, 4])

    Reference: Jacobsen, Smeulders, Oyallon, "i-RevNet", ICLR 2018.
    """

    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.block_size = _block(block_size)

    def forward(self, x: Tensor) -> Tensor:
        """Move the pixels of each block into channels."""
        return unshuffled(x, self.block_size)


class InvertibleUpsampling(MovedNumbers):
    """Move channels into the pixels of blocks: the inverse of ``InvertibleDownsampling``.

    Of images it is ``nn.PixelShuffle``.

    Bound: 1, an isometry.
    Shape: ``(batch, c block_size^2, h, w)`` to ``(batch, c, h block_size, w block_size)``;
        sequences and volumes likewise, with as many factors as axes.
    Cost: a copy.

    Args:
        block_size: side of a block.

    Raises:
        ValueError: a block_size below 1; in ``forward``, channels that do not fill blocks.

    Example:
        >>> import torch
        >>> InvertibleUpsampling(2)(torch.zeros(1, 12, 4, 4)).shape
        torch.Size([1, 3, 8, 8])

    Reference: Jacobsen, Smeulders, Oyallon, "i-RevNet", ICLR 2018.
    """

    def __init__(self, block_size: int) -> None:
        super().__init__()
        self.block_size = _block(block_size)

    def forward(self, x: Tensor) -> Tensor:
        """Move channels into pixels."""
        return shuffled_back(x, self.block_size)


class ChannelShuffle(MovedNumbers):
    """Mix groups of channels: the first of each group, then the second of each, and so on.

    As ``nn.ChannelShuffle``, and of vectors too. Grouped convolutions pass numbers on between
    groups only through one.

    Bound: 1, a permutation.
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: a copy.

    Args:
        groups: number of groups; it must divide the channels.

    Raises:
        ValueError: less than one group; in ``forward``, channels that do not divide.

    Example:
        >>> import torch
        >>> ChannelShuffle(2)(torch.tensor([[1, 2, 3, 4]]))
        tensor([[1, 3, 2, 4]])

    Reference: Zhang, Zhou, Lin, Sun, "ShuffleNet", CVPR 2018.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups must be positive, got {groups}")
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Return the shuffled channels."""
        if x.shape[1] % self.groups:
            raise ValueError(f"groups={self.groups} must divide {x.shape[1]} channels")
        groups: Tensor = x.unflatten(1, (self.groups, -1))
        return groups.transpose(1, 2).flatten(1, 2)


keep_old_names(__name__, {"FirstChannels": "onelip.layers.TruncateChannels"})
