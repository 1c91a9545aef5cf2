"""Normalisations without a division: subtracting means moves no two inputs apart."""

from typing import Any, Unpack

import torch
from torch import Tensor, nn

from onelip.chains.linear_layers import expect, shifted
from onelip.chains.value import Value
from onelip.forward_error import Local, Run, repeated
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule
from onelip.norms.rounding import exact


class LayerCentering(LipschitzModule):
    """Subtract the mean of each sample's channel over its pixels, and add one number per channel.

    Layer normalisation without the division by a deviation, which has no Lipschitz constant. A
    vector without pixels is centred over its features.

    Bound: 1, an orthogonal projection and a shift.
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: elementwise.

    Args:
        channels: of the input.
        bias: whether to add one trained number per channel.
        **factory: ``device`` and ``dtype`` of the bias.

    Raises:
        ValueError: no channel; in ``forward``, another number of channels.

    Example:
        >>> LayerCentering(1)(torch.tensor([[[[1.0, 3.0]]]])).detach()
        tensor([[[[-1.,  1.]]]])
    """

    same_in_float64 = True

    def __init__(self, channels: int, bias: bool = True, **factory: Unpack[FactoryOptions]) -> None:
        super().__init__()
        self.channels = _positive(channels)
        self.bias = nn.Parameter(torch.zeros(channels, **factory)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - mean + bias``."""
        _check_channels(x, self.channels)
        # never over the batch, which would couple samples
        axes = tuple(range(2, x.ndim)) or (1,)
        centred = x - x.mean(axes, keepdim=True)
        return centred if self.bias is None else centred + _per_channel(self.bias, x)

    def lipschitz_bound(self) -> Tensor:
        """Return 1; a bias that is infinite or NaN is refused."""
        if self.bias is not None:
            exact(self.bias)
        return torch.ones((), dtype=torch.float64)

    def forward_error(self, run: Run) -> Local:
        """Rounding of a mean, a difference and a sum; a mean is no longer than its terms."""
        bias = 0.0 if self.bias is None else repeated(exact(self.bias).cpu(), run)
        terms = run.x.count // self.channels if len(run.x.shape) > 1 else self.channels
        run.arithmetic.check(terms * run.x.reach)
        return Local(bias, run.rounding(terms + 4, 2 * run.x.reach + bias))

    def extra_repr(self) -> str:
        """Arguments as in the constructor."""
        return f"{self.channels}, bias={self.bias is not None}"


class BatchCentering(LipschitzModule):
    r"""Subtract the mean of each channel, of the batch in training and a running one in eval mode.

    Batch normalisation without the division by a deviation, by which a bound moves while a network
    is trained.

    A batch is known by its mean: one that is repeated at once, as under gradient checkpointing,
    moves the running mean once.

    Bound: 1. In eval mode it is a shift. In training mode samples are coupled: then the map of a
        whole batch is an orthogonal projection and a shift, and each sample moves its own output by
        ``1 - 1 / n`` at most.
    Shape: ``(batch, channels, ...)`` to the same.
    Cost: elementwise; a mean in training mode.

    Args:
        channels: of the input.
        bias: whether to add one trained number per channel.
        momentum: share of a batch in the running mean.
        **factory: ``device`` and ``dtype`` of the bias and of the running mean.

    Raises:
        ValueError: no channel, or a momentum outside of [0, 1]; in ``forward``, another number of
            channels.

    Example:
        >>> layer = BatchCentering(1)
        >>> layer(torch.tensor([[1.0], [3.0]])).detach()
        tensor([[-1.],
                [ 1.]])
        >>> layer.running_mean
        tensor([0.2000])
    """

    same_in_float64 = True

    running_mean: Tensor
    last_mean: Tensor

    def __init__(
        self,
        channels: int,
        bias: bool = True,
        *,
        momentum: float = 0.1,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum is a share between 0 and 1, got {momentum}")
        self.channels, self.momentum = _positive(channels), momentum
        self.bias = nn.Parameter(torch.zeros(channels, **factory)) if bias else None
        self.register_buffer("running_mean", torch.zeros(channels, **factory))
        self.register_buffer("last_mean", torch.zeros(channels, **factory))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - mean + bias``; in training mode, move the running mean."""
        _check_channels(x, self.channels)
        mean = self.running_mean
        if self.training and x.numel():
            mean = x.mean((0, *range(2, x.ndim)))
            self._follow(mean.detach().to(self.running_mean))
        centred = x - _per_channel(mean, x)
        return centred if self.bias is None else centred + _per_channel(self.bias, x)

    @torch.no_grad()
    def _follow(self, mean: Tensor) -> None:
        """Move the running mean, unless this batch came last: checkpointing sees it twice."""
        moved = self.running_mean.lerp(mean, self.momentum)
        again = (mean == self.last_mean).all()
        self.running_mean.copy_(torch.where(again, self.running_mean, moved))
        self.last_mean.copy_(mean)

    def lipschitz_bound(self) -> Tensor:
        """Return 1; a mean or bias that is infinite or NaN is refused."""
        exact(self.running_mean)
        if self.bias is not None:
            exact(self.bias)
        return torch.ones((), dtype=torch.float64)

    @torch.no_grad()
    def export(self) -> "BatchCentering":
        """Return the layer with its running mean, in eval mode."""
        fixed = BatchCentering(
            self.channels,
            self.bias is not None,
            momentum=self.momentum,
            device=self.running_mean.device,
            dtype=self.running_mean.dtype,
        ).eval()
        fixed.load_state_dict(self.state_dict())
        return fixed

    def to_chain(self, value: Value) -> Value:
        """Read the layer in eval mode: a shift."""
        self.lipschitz_bound()  # refuses numbers that are not finite
        fits = len(value.shape) > 0 and value.shape[0] == self.channels
        expect(value, f"({self.channels}, ...)", fits)
        shape = (-1, *(1,) * (len(value.shape) - 1))
        moved = shifted(value, -self.running_mean.view(shape))
        return moved if self.bias is None else shifted(moved, self.bias.view(shape))

    def forward_error(self, run: Run) -> Local:
        """Rounding of a difference and a sum."""
        mean = repeated(exact(self.running_mean).cpu(), run)
        bias = 0.0 if self.bias is None else repeated(exact(self.bias).cpu(), run)
        return Local(mean + bias, run.rounding(2, run.x.reach + mean + bias))

    def extra_repr(self) -> str:
        """Arguments as in the constructor."""
        return f"{self.channels}, bias={self.bias is not None}, momentum={self.momentum}"


def _positive(channels: int) -> int:
    """Return the number of channels, if it is positive."""
    if channels < 1:
        raise ValueError(f"channels must be positive, got {channels}")
    return channels


def _check_channels(x: Tensor, channels: int) -> None:
    """Check the number of channels: broadcasting would repeat an image of one channel."""
    if x.ndim < 2 or x.shape[1] != channels:
        raise ValueError(f"expected (batch, {channels}, ...), got {tuple(x.shape)}")


def _per_channel(numbers: Any, x: Tensor) -> Tensor:
    """Return one number per channel, in a shape that can be added to x."""
    result: Tensor = numbers.view(-1, *(1,) * (x.ndim - 2))
    return result
