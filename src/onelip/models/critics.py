"""Critics: 1-Lipschitz networks with one output, for Wasserstein distances (dual form)."""

import math

import torch
from torch import Tensor, nn

from onelip.errors import UsageError
from onelip.layers import LipschitzExtension, Normalize
from onelip.models import families
from onelip.models.convex_potential import Shape


def dense_critic(
    features: int,
    widths: tuple[int, ...] = (128, 128, 128),
    *,
    linear: families.Linear = "cholesky",
    activation: families.Activation = "full-sort",
) -> nn.Sequential:
    """Build a critic of dense layers and activations, with one output.

    Args:
        features: size of a sample.
        widths: width of each layer.
        linear: family of the layers.
        activation: after each layer but the last.

    Raises:
        UsageError: a name is not known.
        ValueError: in ``forward``, a width that the activation cannot divide.

    Example:
        >>> import torch
        >>> dense_critic(2)(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """
    sizes = (features, *widths)
    parts: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip(sizes, widths, strict=False):
        parts += [families.linear(linear, inputs, outputs), families.activate(activation, outputs)]
    parts.append(families.linear(linear, sizes[-1], 1))
    return nn.Sequential(*parts)


def dcgan_critic(
    input_shape: Shape,
    widths: tuple[int, ...] = (16, 32, 64),
    *,
    convolution: families.Convolution = "bcop",
    linear: families.Linear = "cholesky",
    activation: families.Activation = "max-min",
) -> nn.Sequential:
    """Build the discriminator of DCGAN without batch norm: 4 x 4 convolutions of stride 2.

    Images whose sides are no multiples of ``2^len(widths)`` get a border of zeros; if the number of
    added rows or columns is odd, one more at the bottom or the right. A critic of (64, 128, 256,
    512) channels on images of 64 x 64 pixels is that of BCOP's Table 4.

    Args:
        input_shape: channels, height and width of an image.
        widths: output channels of each convolution.
        convolution: family of the convolutions.
        linear: family of the last layer.
        activation: after each convolution.

    Raises:
        UsageError: a name is not known, or the images are too small for so many convolutions.
        ValueError: in ``forward``, a width that the activation cannot divide.

    Example:
        >>> import torch
        >>> dcgan_critic((1, 28, 28))(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 1])
    """
    channels, *sides = input_shape
    stride = 2 ** len(widths)
    border = [-side % stride for side in sides]
    height, width = (side + more for side, more in zip(sides, border, strict=True))
    if min(sides) < stride:
        raise UsageError(
            f"{len(widths)} convolutions of stride 2 leave nothing of {sides[0]} x {sides[1]} "
            "pixels: use fewer, or a dense critic"
        )
    parts: list[nn.Module] = []
    if any(border):
        top, left = (more // 2 for more in border)
        parts.append(nn.ZeroPad2d((left, border[1] - left, top, border[0] - top)))
    for outputs in widths:
        parts += families.convolution(
            convolution,
            channels,
            outputs,
            4,
            image_size=(height, width),
            stride=2,
            activation=activation,
        )
        channels, height, width = outputs, height // 2, width // 2
    parts += [nn.Flatten(), families.linear(linear, channels * height * width, 1)]
    return nn.Sequential(*parts)


_LONGEST = 3.5  # of points at first, in units of the deviation of a coordinate


def extension_critic(
    features: int,
    widths: tuple[int, ...] = (1024,),
    *,
    samples: tuple[Tensor, Tensor] | None = None,
) -> nn.Sequential:
    """Build a trained Lipschitz extension behind a common scale of all coordinates.

    Its points begin at samples of P and Q; those of many features nearer to their mean, since all
    samples are about equally far from each other there.

    Args:
        features: size of a sample.
        widths: number of points, alone.
        samples: of P and of Q for training, which give scale and points; None for those of a
            critic whose weights are loaded.

    Raises:
        UsageError: not one positive number of points.

    Example:
        >>> extension_critic(2, (8,))(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """
    if len(widths) != 1 or widths[0] < 1:
        raise UsageError(f"an extension has one number of points, such as 1024, got {widths}")
    layer = LipschitzExtension(features, *widths)
    if samples is None:
        return nn.Sequential(nn.Flatten(), Normalize([0.0] * features, [1.0] * features), layer)
    flat = [part.flatten(1).double().cpu() for part in samples]
    mean = torch.cat(flat).mean(0)
    scale = float((torch.cat(flat) - mean).square().mean().sqrt()) or 1.0
    half = (widths[0] + 1) // 2
    chosen = [part[torch.randint(len(part), (half,))] for part in flat]
    nearer = min(1.0, _LONGEST / math.sqrt(features))
    layer.start((torch.cat(chosen)[: widths[0]] - mean) / scale * nearer)
    return nn.Sequential(nn.Flatten(), Normalize(mean.tolist(), [scale] * features), layer)
