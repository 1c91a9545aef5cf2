"""Networks of BCOP's experiments (Li et al., 2019): Wong and Kolter's two, and a dense one."""

from functools import partial

from torch import nn

from onelip.errors import UsageError
from onelip.image_sets import CIFAR10_MEAN
from onelip.layers import Normalize
from onelip.models import families
from onelip.models.convex_potential import Shape

Block = tuple[int, int, int]
"""Output channels, kernel size and stride of a convolution."""

_SMALL: tuple[Block, ...] = ((16, 4, 2), (32, 4, 2))
_LARGE: tuple[Block, ...] = ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 4, 2))


def convolutional_network(
    input_shape: Shape,
    classes: int,
    *,
    blocks: tuple[Block, ...] = _SMALL,
    features: tuple[int, ...] = (100,),
    width: int = 1,
    convolution: families.Convolution = "bcop",
    linear: families.Linear = "cholesky",
    activation: families.Activation = "max-min",
    head: families.Head = "orthogonal",
    hidden: int = 4096,
    mean: tuple[float, ...] | None = None,
) -> nn.Sequential:
    """Convolutions, dense layers, head, with an activation after each layer but the last.

    Args:
        input_shape: channels, height and width of an image.
        classes: number of logits.
        blocks: output channels, kernel size and stride of each convolution.
        features: width of each dense layer.
        width: factor of all channels and features; 3 in Cayley's KW3.
        convolution: family of the convolutions.
        linear: family of the dense layers.
        activation: after each layer.
        head: rows of length 1, orthonormal rows, the first features, a free matrix, or an MLP.
        hidden: width of the hidden layer of ``head="mlp"``.
        mean: mean to subtract from the image, per channel.

    Raises:
        UsageError: a name is not known, or a stride does not divide the image.

    Example:
        >>> model = convolutional_network((1, 8, 8), 10, convolution="rko")
        >>> sum(p.numel() for p in model.parameters())
        22406
    """
    channels, height, side = input_shape
    parts: list[nn.Module] = []
    if mean is not None:
        parts.append(Normalize(mean, (1.0,) * channels))
    for outputs, kernel_size, stride in blocks:
        if height % stride or side % stride:
            raise UsageError(f"a stride of {stride} does not divide {height} x {side} pixels")
        parts += families.convolution(
            convolution,
            channels,
            width * outputs,
            kernel_size,
            image_size=(height, side),
            stride=stride,
            activation=activation,
        )
        channels, height, side = width * outputs, height // stride, side // stride
    parts.append(nn.Flatten())
    size = channels * height * side
    for wanted in features:
        parts += [
            families.linear(linear, size, width * wanted),
            families.activate(activation, width * wanted),
        ]
        size = width * wanted
    parts.append(families.classify(head, size, classes, hidden=hidden))
    return nn.Sequential(*parts)


kw_small = convolutional_network
kw_large = partial(convolutional_network, blocks=_LARGE, features=(512, 512))
kw3 = partial(kw_large, width=3, convolution="cayley", linear="cayley", mean=CIFAR10_MEAN)
fc3 = partial(convolutional_network, blocks=(), features=(1024, 1024, 1024))
mnist_dense = partial(fc3, features=(512, 512, 512, 512), head="unit-rows")
