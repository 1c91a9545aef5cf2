"""Layers by name, so that a network of a paper can be built from any family."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

from torch import nn

from onelip import layers
from onelip.errors import UsageError

Convolution = Literal[
    "aoc",
    "aol",
    "bcop",
    "bro",
    "cayley",
    "cpl",
    "liresnet",
    "lot",
    "ossn",
    "rko",
    "sll",
    "soc",
    "svcm",
]
Linear = Literal["aol", "bjorck", "bro", "cayley", "cholesky"]
Activation = Literal[
    "absolute",
    "full-sort",
    "half-absolute",
    "householder",
    "householder-2",
    "max-min",
    "n-activation",
    "relu",
]
CONVOLUTIONS: tuple[str, ...] = get_args(Convolution)
"""Names of the families of convolutions."""
LINEAR: tuple[str, ...] = get_args(Linear)
"""Names of the families of dense layers."""

Head = Literal["unit-rows", "orthogonal", "truncate", "linear", "mlp"]
Size = tuple[int, int]

_PLAIN: dict[str, Callable[..., nn.Module]] = {
    "aoc": layers.AOCConv2d,
    "aol": partial(layers.AOLConv2d, padding_mode="zeros"),
    "bcop": layers.BCOPConv2d,
    "bro": layers.BROConv2d,
    "cayley": layers.CayleyConv2d,
    "lot": layers.LOTConv2d,
    "ossn": layers.OSSNConv2d,
    "rko": layers.RKOConv2d,
    "soc": partial(layers.SOCConv2d, padding_mode="zeros"),
    "svcm": layers.SVCMConv2d,
}
# layers that keep the number of channels: channels, kernel size and image size to a layer
_RESIDUAL: dict[str, Callable[..., nn.Module]] = {
    "cpl": lambda c, k, **size: layers.ConvexPotentialConv2d(c, c, k, **size),
    "liresnet": layers.LiResNetConv2d,
    "sll": lambda c, k, **size: layers.SLLConv2d(c, c, k, **size),
}
_ACTIVE = ("cpl", "sll")  # families with an activation inside
_LINEAR: dict[str, Callable[..., nn.Module]] = {
    "aol": layers.AOLLinear,
    "bjorck": layers.BjorckLinear,
    "bro": layers.BROLinear,
    "cayley": layers.CayleyLinear,
    "cholesky": layers.CholeskyLinear,
}
_ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "absolute": lambda _: layers.Abs(),
    "full-sort": layers.GroupSort,
    "half-absolute": layers.HalfAbs,
    "householder": layers.Householder,
    "householder-2": partial(layers.Householder, order=2),
    "max-min": lambda _: layers.MaxMin(),
    "n-activation": layers.NActivation,
    "relu": lambda _: nn.ReLU(),
}


def convolution(
    family: str,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    image_size: Size,
    stride: int = 1,
    activation: str | None = None,
    **options: Any,
) -> list[nn.Module]:
    """A convolution of a family, and the activation after it.

    Residual families (``"cpl"``, ``"liresnet"``, ``"sll"``) keep the number of channels and the
    image's size: channels are padded or truncated around them, and a stride becomes invertible
    downsampling. Those with an activation inside (``"cpl"``, ``"sll"``) get no other.

    Raises:
        UsageError: the family or the activation does not exist.
    """
    if family in _RESIDUAL:
        return _residual(
            family,
            in_channels,
            out_channels,
            kernel_size,
            image_size=image_size,
            stride=stride,
            activation=activation,
        )
    shape = {"image_size": image_size, "stride": stride, **options}
    if stride == 1:
        del shape["stride"]
    elif family == "soc":  # whose odd kernel acts after invertible downsampling
        kernel_size = max(1, kernel_size // stride) | 1
    if family == "svcm":  # which projects onto kernels that fit into the image
        kernel_size = min(kernel_size, *image_size)
    layer = _choose("convolution", _PLAIN, family)(in_channels, out_channels, kernel_size, **shape)
    return [layer] if activation is None else [layer, activate(activation, out_channels)]


def linear(family: str, in_features: int, out_features: int) -> nn.Module:
    """Return a dense layer of a family.

    Raises:
        UsageError: the family does not exist.
    """
    return _choose("linear", _LINEAR, family)(in_features, out_features)


def activate(name: str, channels: int) -> nn.Module:
    """Return an activation for this many channels.

    Raises:
        UsageError: the activation does not exist.
    """
    return _choose("activation", _ACTIVATIONS, name)(channels)


def classify(head: str, features: int, classes: int, *, hidden: int = 4096) -> nn.Module:
    """Return the last layer of a classifier.

    Args:
        head: rows of length 1, orthonormal rows, the first features, a free matrix, or an MLP.
        features: size of its input.
        classes: number of logits.
        hidden: width of ``"mlp"``.

    Raises:
        UsageError: the head does not exist, or there are fewer features than logits.
    """
    heads: dict[str, Callable[[], nn.Module]] = {
        "unit-rows": lambda: layers.UnitNormLinear(features, classes),
        "orthogonal": lambda: layers.CholeskyLinear(features, classes),
        "truncate": lambda: layers.TruncateChannels(classes),
        "linear": lambda: nn.Linear(features, classes),
        "mlp": lambda: layers.MLPHead(features, classes, hidden),
    }
    if head == "truncate" and features < classes:
        raise UsageError(f"{features} features cannot be truncated to {classes} logits: unit-rows")
    return _choose("head", heads, head)()


def _residual(
    family: str,
    inputs: int,
    outputs: int,
    kernel_size: int,
    *,
    image_size: Size,
    stride: int,
    activation: str | None,
) -> list[nn.Module]:
    """A residual layer of a family, with changes of channels and downsampling around it."""
    parts: list[nn.Module] = []
    if stride > 1:
        parts.append(layers.InvertibleDownsampling(stride))
        inputs *= stride**2
        image_size = (image_size[0] // stride, image_size[1] // stride)
        # | 1: residual layers need odd kernels, also after the division by the stride
        kernel_size = max(1, kernel_size // stride) | 1
    channels = max(inputs, outputs)
    if channels > inputs:
        parts.append(layers.ZeroPadChannels(channels))
    parts.append(_RESIDUAL[family](channels, kernel_size, image_size=image_size))
    if outputs < channels:
        parts.append(layers.TruncateChannels(outputs))
    if activation is not None and family not in _ACTIVE:
        parts.append(activate(activation, outputs))
    return parts


def _choose(kind: str, known: dict[str, Any], name: str) -> Callable[..., nn.Module]:
    """Return the entry of a name, or raise ``UsageError`` with the names that are known."""
    if name not in known:
        raise UsageError(f"no {kind} {name!r}; known: {', '.join(known)}")
    found: Callable[..., nn.Module] = known[name]
    return found
