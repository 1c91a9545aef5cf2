"""Convex Potential networks (Meunier et al., 2022, section 5.1 and Table 1)."""

from functools import partial
from typing import Literal

from torch import nn

from onelip.image_sets import CIFAR10_MEAN
from onelip.layers import (
    ConvexPotentialConv2d,
    ConvexPotentialLinear,
    Normalize,
    ScaledAvgPool2d,
    ZeroPadChannels,
)
from onelip.models import families

Shape = tuple[int, int, int]


def convex_potential_network(
    input_shape: Shape,
    classes: int,
    *,
    conv_layers: int = 0,
    channels: int = 45,
    hidden_channels: int = 5,
    kernel_size: int = 3,
    pool: int = 4,
    linear_layers: int = 7,
    features: int = 2048,
    head: families.Head = "truncate",
    hidden: int = 4096,
    mean: tuple[float, ...] | None = None,
    padding_mode: Literal["zeros", "circular"] = "zeros",
    step: float | None = None,
) -> nn.Sequential:
    """Build a Convex Potential network: padded channels, convolutions, pooling, dense layers, head.

    Args:
        input_shape: channels, height and width of an image.
        classes: number of logits.
        conv_layers: number of convolutional Convex Potential layers; 0 for a dense network.
        channels: channels to which the image is padded.
        hidden_channels: inner width of a convolutional layer.
        kernel_size: odd.
        pool: side of the average pooling after the convolutions; it must divide the image.
        linear_layers: number of dense Convex Potential layers.
        features: inner width of a dense layer.
        head: rows of length 1, orthonormal rows, the first features, a free matrix, or an MLP.
        hidden: width of the hidden layer of ``head="mlp"``.
        mean: mean to subtract from the image, per channel.
        padding_mode: padding of the convolutions.
        step: a fixed step size for all layers (appendix D.2); None keeps them 1-Lipschitz.

    Returns:
        A Sequential of 1-Lipschitz layers.

    Raises:
        ValueError: a size is too small, or does not fit the image.

    Example:
        >>> model = convex_potential_network((1, 8, 8), 10, conv_layers=2, channels=4, pool=2,
        ...                                  linear_layers=1, features=16)
        >>> sum(p.numel() for p in model.parameters())
        1410
    """
    depth, height, width = input_shape
    _check_sizes(conv_layers=conv_layers, linear_layers=linear_layers)
    _check_sizes(1, hidden_channels=hidden_channels, kernel_size=kernel_size, pool=pool)
    _check_sizes(1, features=features)
    layers: list[nn.Module] = []
    if mean is not None:
        layers.append(Normalize(mean, (1.0,) * depth))
    if conv_layers:
        _check_sizes(depth, channels=channels)
        if height % pool or width % pool:
            raise ValueError(f"pool={pool} does not divide an image of {height} x {width}")
        layers.append(ZeroPadChannels(channels))
        layers += [
            ConvexPotentialConv2d(
                channels,
                hidden_channels,
                kernel_size,
                image_size=(height, width),
                padding_mode=padding_mode,
                step=step,
            )
            for _ in range(conv_layers)
        ]
        layers.append(ScaledAvgPool2d(pool))
        depth, height, width = channels, height // pool, width // pool
    width = depth * height * width
    layers.append(nn.Flatten())
    layers += [ConvexPotentialLinear(width, features, step=step) for _ in range(linear_layers)]
    layers.append(families.classify(head, width, classes, hidden=hidden))
    return nn.Sequential(*layers)


def _check_sizes(least: int = 0, **sizes: int) -> None:
    """Refuse sizes below a least one."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name} must be at least {least}, got {size}")


cpl_s = partial(
    convex_potential_network,
    conv_layers=20,
    channels=45,
    linear_layers=7,
    features=2048,
    mean=CIFAR10_MEAN,
)
cpl_m = partial(cpl_s, conv_layers=30, channels=60, linear_layers=10)
cpl_l = partial(cpl_m, conv_layers=90, linear_layers=15, features=4096)
cpl_xl = partial(cpl_l, conv_layers=120, channels=70)

cpl_digits = partial(
    convex_potential_network,
    conv_layers=4,
    channels=16,
    hidden_channels=16,
    pool=2,
    linear_layers=3,
    features=256,
    head="unit-rows",
)
cpl_mnist = partial(
    convex_potential_network,
    linear_layers=24,
    features=256,
    head="unit-rows",
)
