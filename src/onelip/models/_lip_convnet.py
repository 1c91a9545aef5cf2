"""LipConvnets (Singla, Feizi, 2021 and 2022)."""

from typing import Literal

from torch import nn

from onelip.errors import UsageError
from onelip.image_sets import CIFAR10_MEAN, CIFAR_STD
from onelip.layers import ChannelMaxPool, InvertibleDownsampling, Normalize, ProjectionPool2d
from onelip.models import families
from onelip.models.convex_potential import Shape


def lip_convnet(
    input_shape: Shape,
    classes: int,
    *,
    depth: int = 5,
    channels: int = 32,
    convolution: families.Convolution = "soc",
    activation: families.Activation = "max-min",
    pooling: Literal["max", "projection", "stride"] = "max",
    exact_gradient: bool = False,
    head: families.Head = "unit-rows",
    hidden: int = 4096,
    mean: tuple[float, ...] | None = CIFAR10_MEAN,
    std: tuple[float, ...] | None = CIFAR_STD,
) -> nn.Sequential:
    """Build LipConvnet-n: a convolution and five blocks of ``n / 5``, each halving the image.

    Kernels are 3 x 3, and 1 x 1 in the last block.

    Args:
        input_shape: channels, height and width of an image; 32 must divide the sides.
        classes: number of logits.
        depth: n of LipConvnet-n, a multiple of 5.
        channels: after the first convolution; each block doubles them.
        convolution: family of the convolutions.
        activation: after each convolution that is not pooled.
        pooling: what ends a block: the maximum of two halves of the channels, their projection
            pooling, or a strided convolution with an activation (the first LipConvnets).
        exact_gradient: whether ``"soc"`` uses its exact gradient instead of the fast one.
        head: rows of length 1, orthonormal rows, the first features, a free matrix, or an MLP.
        hidden: width of the hidden layer of ``head="mlp"``.
        mean: mean to subtract from the image, per channel; None for no normalisation.
        std: divisor of the image, per channel; it counts in the bound.

    Raises:
        UsageError: a name is not known, or a size does not fit.

    Example:
        >>> model = lip_convnet((3, 32, 32), 10, convolution="bcop", channels=4)
        >>> sum(type(part).__name__ == "BCOPConv2d" for part in model)
        6
    """
    depth_of_block, rest = divmod(depth, 5)
    if rest or depth < 5:
        raise UsageError(f"depth must be a positive multiple of 5, got {depth}")
    inputs, height, width = input_shape
    if height % 32 or width % 32:
        raise UsageError(f"five blocks halve the image: 32 does not divide {height} x {width}")
    options = {"exact_gradient": exact_gradient} if convolution == "soc" else {}

    def conv(size: tuple[int, int], *shape: int, stride: int = 1, active: bool = True) -> None:
        parts.extend(
            families.convolution(
                convolution,
                *shape,
                image_size=size,
                stride=stride,
                activation=activation if active else None,
                **options,
            )
        )

    parts: list[nn.Module] = []
    if mean is not None:
        parts.append(Normalize(mean, std or (1.0,) * inputs))
    conv((height, width), inputs, channels, 3)
    for block in range(5):
        kernel, half = 3 if block < 4 else 1, (height // 2, width // 2)
        for _ in range(depth_of_block - 1):
            conv((height, width), channels, channels, kernel)
        if pooling == "stride":
            parts.append(InvertibleDownsampling(2))
            conv(half, 4 * channels, 2 * channels, kernel)
        else:
            parts.append(InvertibleDownsampling(2))
            conv(half, 4 * channels, 4 * channels, kernel, active=False)
            pool = ChannelMaxPool() if pooling == "max" else ProjectionPool2d(4 * channels)
            parts.append(pool)
        channels, (height, width) = 2 * channels, half
    features = channels * height * width
    return nn.Sequential(
        *parts, nn.Flatten(), families.classify(head, features, classes, hidden=hidden)
    )
