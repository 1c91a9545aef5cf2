"""A small DCGAN generator of images, and a plain critic without a proved bound."""

import copy
import itertools
import math

import torch
from torch import Tensor, nn

from onelip.errors import UsageError
from onelip.models.convex_potential import Shape


def dcgan_generator(
    output_shape: Shape, latent: int = 64, *, widths: tuple[int, ...] = (64, 32)
) -> nn.Sequential:
    """Build a generator of images in [0, 1]: a dense layer, transposed convolutions of stride 2.

    Shape: ``(batch, latent)`` to ``(batch, channels, height, width)``.

    Args:
        output_shape: channels, height and width of an image; each width doubles the sides once.
        latent: number of normal noise inputs for one image.
        widths: input channels of each transposed convolution.

    Raises:
        UsageError: a size is not positive, or the sides cannot be halved as often as they must.

    Example:
        >>> import torch
        >>> dcgan_generator((1, 28, 28))(torch.randn(5, 64)).shape
        torch.Size([5, 1, 28, 28])

    Reference: Radford et al., "Unsupervised Representation Learning with Deep Convolutional
        Generative Adversarial Networks", ICLR 2016, figure 1.
    """
    channels, height, side = output_shape
    scale = 2 ** len(widths)
    if min(latent, *output_shape, *widths, len(widths)) < 1:
        raise UsageError(
            f"latent={latent}, widths={widths} and the image {output_shape} must be positive"
        )
    if height % scale or side % scale:
        raise UsageError(
            f"{len(widths)} widths double the image as often: {scale} does not divide "
            f"{height} x {side}; pass fewer widths"
        )
    start = (widths[0], height // scale, side // scale)
    parts: list[nn.Module] = [
        nn.Linear(latent, math.prod(start), bias=False),
        nn.Unflatten(1, start),
    ]
    for before, after in itertools.pairwise((*widths, channels)):
        parts += [
            nn.BatchNorm2d(before),
            nn.ReLU(),
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1),
        ]
    return nn.Sequential(*parts, nn.Sigmoid())


def plain_critic(input_shape: Shape, *, widths: tuple[int, ...] = (32, 64)) -> nn.Sequential:
    """Build a plain critic for a gradient penalty: convolutions of stride 2, leaky ReLU.

    It has no batch norm, since the penalty is on the gradient at single images.

    Shape: ``(batch, channels, height, width)`` to ``(batch, 1)``.

    Args:
        input_shape: channels, height and width of an image.
        widths: channels after each convolution, which halves the sides.

    Raises:
        UsageError: a size is not positive, or the image is too small to be halved that often.

    Example:
        >>> import torch
        >>> plain_critic((1, 28, 28))(torch.rand(5, 1, 28, 28)).shape
        torch.Size([5, 1])

    Reference: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, section 4.
    """
    channels, height, side = input_shape
    scale = 2 ** len(widths)
    if min(*input_shape, *widths, len(widths)) < 1 or min(height, side) < scale:
        raise UsageError(
            f"widths={widths} must be positive and halve an image {input_shape} at most to one "
            "pixel: pass fewer widths"
        )
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise((channels, *widths)):
        parts += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    features = widths[-1] * (height // scale) * (side // scale)
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(features, 1))


def latent_features(generator: nn.Module) -> int:
    """Number of noise inputs of a generator: those of its first dense layer.

    Raises:
        UsageError: it has no dense layer.

    Example:
        >>> latent_features(dcgan_generator((1, 8, 8), 16))
        16
    """
    for part in generator.modules():
        if isinstance(part, nn.Linear):
            return part.in_features
    raise UsageError("the generator has no nn.Linear that takes the noise: begin it with one")


@torch.no_grad()
def generate(generator: nn.Module, count: int, *, seed: int = 0, batch: int = 256) -> Tensor:
    """Return images of a generator, computed by a copy in eval mode.

    Args:
        generator: a map from normal noise to images, with a dense layer first.
        count: number of images.
        seed: seed of the noise.
        batch: number of images in one call.

    Returns:
        Tensor of shape ``(count, ...)`` on the CPU.

    Example:
        >>> generate(dcgan_generator((1, 8, 8)), 3).shape
        torch.Size([3, 1, 8, 8])
    """
    if min(count, batch) < 1:
        raise UsageError(f"count={count} and batch={batch} must be positive")
    weight = next(generator.parameters())
    source = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, latent_features(generator), generator=source).to(weight)
    still = copy.deepcopy(generator).eval()
    return torch.cat([still(part).cpu() for part in noise.split(batch)])
