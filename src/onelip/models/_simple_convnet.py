"""Networks of "1-Lipschitz Layers Compared" (Prach, Brau, Buttazzo, Lampert, CVPR 2024)."""

from functools import partial

from torch import nn

from onelip.errors import UsageError
from onelip.layers import InvertibleDownsampling, TruncateChannels, ZeroPadChannels
from onelip.models import families
from onelip.models.convex_potential import Shape


def simple_convnet(
    input_shape: Shape,
    classes: int,
    *,
    width: int = 16,
    depth: int = 5,
    convolution: families.Convolution = "cpl",
    activation: families.Activation = "max-min",
    head: families.Head = "unit-rows",
    hidden: int = 4096,
) -> nn.Sequential:
    """Build a network of five blocks, each of which halves the image and doubles the channels.

    Args:
        input_shape: channels, height and width of an image; 32 must divide the sides.
        classes: number of logits.
        width: channels to which the image is padded: 16, 32, 64 and 128 for XS, S, M and L.
        depth: convolutions of a block; 3 x 3, and 1 x 1 in the last block.
        convolution: family of the convolutions.
        activation: after each convolution of a family that has none inside.
        head: rows of length 1, orthonormal rows, the first features, a free matrix, or an MLP.
        hidden: width of the hidden layer of ``head="mlp"``.

    Raises:
        UsageError: a name is not known, or a size does not fit.

    Example:
        >>> model = simple_convnet((3, 32, 32), 10, convolution="aoc", depth=1)
        >>> sum(type(part).__name__ == "AOCConv2d" for part in model)
        6
    """
    inputs, height, side = input_shape
    if height % 32 or side % 32:
        raise UsageError(f"five blocks halve the image: 32 does not divide {height} x {side}")
    if width < inputs or width % 2 or depth < 1:
        raise UsageError(
            f"width={width} must be even and hold the {inputs} channels of the image, and "
            f"depth={depth} be positive"
        )
    parts: list[nn.Module] = [ZeroPadChannels(width)]
    parts += families.convolution(
        convolution, width, width, 1, image_size=(height, side), activation=activation
    )
    for block in range(5):
        for _ in range(depth):
            parts += families.convolution(
                convolution,
                width,
                width,
                3 if block < 4 else 1,
                image_size=(height, side),
                activation=activation,
            )
        # half of the channels go, and downsampling multiplies the rest by 4: twice as many in all
        parts += [TruncateChannels(width // 2), InvertibleDownsampling(2)]
        width, height, side = 2 * width, height // 2, side // 2
    features = width * height * side
    return nn.Sequential(
        *parts, nn.Flatten(), families.classify(head, features, classes, hidden=hidden)
    )


simple_convnet_xs = simple_convnet
simple_convnet_s = partial(simple_convnet, width=32)
simple_convnet_m = partial(simple_convnet, width=64)
simple_convnet_l = partial(simple_convnet, width=128)
