"""Plain networks mCnF of certified training: m convolutions and n dense layers."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import nn

from onelip.errors import UsageError
from onelip.layers import MaxMin, Normalize
from onelip.models.convex_potential import Shape

Activation = Literal["relu", "leaky-relu", "max-min"]
Block = tuple[int, int, int, int]
"""Output channels, kernel size, stride and zero padding of a convolution."""

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "max-min": MaxMin,
}
_4C: tuple[Block, ...] = ((32, 3, 1, 1), (32, 4, 2, 1), (64, 3, 1, 1), (64, 4, 2, 1))
_6C: tuple[Block, ...] = (*_4C, (64, 3, 1, 1), (64, 4, 2, 1))
_8C: tuple[Block, ...] = (
    (64, 3, 1, 1),
    (64, 3, 1, 0),
    (64, 4, 2, 0),
    (128, 3, 1, 1),
    (128, 3, 1, 1),
    (128, 4, 2, 0),
    (256, 3, 1, 1),
    (256, 4, 2, 0),
)


def mcnf(
    input_shape: Shape,
    classes: int,
    *,
    blocks: tuple[Block, ...] = _4C,
    features: tuple[int, ...] = (512, 512),
    width: float = 1.0,
    activation: Activation = "relu",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> nn.Sequential:
    """Convolutions and dense layers of torch, with an activation after each but the last.

    No layer is constrained; the loss keeps the Lipschitz constant small, and a method bounds it.

    Args:
        input_shape: channels, height and width of an image.
        classes: number of logits.
        blocks: output channels, kernel size, stride and zero padding of each convolution.
        features: width of each dense layer.
        width: factor of all channels and features, which are rounded to even numbers.
        activation: after each layer.
        mean: subtracted from the image, per channel.
        std: divisor of the image, per channel; it counts in the constant.

    Raises:
        UsageError: the activation is not known, a width is not positive, or an image shrinks to
            nothing.

    Example:
        >>> from onelip.models import c4f3
        >>> sum(p.numel() for p in c4f3((1, 28, 28), 10).parameters())
        1974762

    Reference:
        Fazlyab, Entesari, Roy, Chellappa, "Certified Robustness via Dynamic Margin Maximization and
        Improved Lipschitz Regularization", NeurIPS 2023. Its 8C2F leaves the padding out of four
        convolutions, so that every stride fits the image.
    """
    if activation not in _ACTIVATIONS:
        raise UsageError(f"no activation {activation!r}; known: {', '.join(_ACTIVATIONS)}")
    if not 0 < width < float("inf"):
        raise UsageError(f"width must be positive, got {width}")
    active = _ACTIVATIONS[activation]
    channels, *sides = input_shape
    parts: list[nn.Module] = []
    if mean is not None or std is not None:
        parts.append(Normalize(mean or (0.0,) * channels, std or (1.0,) * channels))
    for outputs, kernel_size, stride, padding in blocks:
        sides = [(side + 2 * padding - kernel_size) // stride + 1 for side in sides]
        if min(sides) < 1:
            raise UsageError(f"{input_shape} is too small for {len(blocks)} convolutions")
        wide = _even(width * outputs)
        parts += [nn.Conv2d(channels, wide, kernel_size, stride, padding), active()]
        channels = wide
    parts.append(nn.Flatten())
    size = channels * sides[0] * sides[1]
    for outputs in features:
        wide = _even(width * outputs)
        parts += [nn.Linear(size, wide), active()]
        size = wide
    return nn.Sequential(*parts, nn.Linear(size, classes))


def _even(number: float) -> int:
    """Round to an even number, at least 2: MaxMin needs pairs of channels."""
    return 2 * max(1, round(number / 2))


c4f3 = partial(mcnf, blocks=_4C, features=(512, 512))
c6f2 = partial(mcnf, blocks=_6C, features=(512,))
c8f2 = partial(mcnf, blocks=_8C, features=(256,))
