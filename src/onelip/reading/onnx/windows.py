"""ONNX's convolutions and poolings; see ``operators``."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from onelip.chains import Opaque
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.norms.convolutions import Pair
from onelip.reading.graphs import along_axes as along
from onelip.reading.graphs import operations as on
from onelip.reading.graphs import pooling
from onelip.reading.graphs.frame import as_images, from_images
from onelip.reading.onnx.attributes import Attributes

Sides = list[Pair]
Operator = Callable[..., Value]


def on_images(operator: Operator) -> Operator:
    """An operator on images; several in a whole tensor are one of as many times the channels.

    After its attributes the operator is given the number of copies, then its inputs.
    """

    @functools.wraps(operator)
    def put(attributes: Attributes, value: Value, *inputs: Any) -> Value:
        if not isinstance(value, Value) or any(isinstance(part, Value) for part in inputs):
            raise UnboundedModuleError("weights that depend on the input make it a product")
        image, copies = as_images(attributes.frame, value)
        return from_images(attributes.frame, operator(attributes, copies, image, *inputs), copies)

    return put


def copied(numbers: Tensor | None, copies: int) -> Any:
    """Weights once for each image."""
    if numbers is None or copies == 1:
        return numbers
    return numbers.repeat(copies, *(1,) * (numbers.ndim - 1))


@on_images
def conv(
    attributes: Attributes, copies: int, value: Value, weight: Tensor, bias: Any = None
) -> Value:
    """Along one axis, two or three."""
    axes = weight.ndim - 2
    if axes not in (1, 2, 3):
        raise UnboundedModuleError(f"a convolution is known along one to three axes, not {axes}")
    stride = attributes.get("strides", [1] * axes)
    dilation = attributes.get("dilations", [1] * axes)
    return on.convolve(
        value,
        copied(weight, copies),
        copied(bias, copies),
        stride=stride,
        sides=_sides(attributes, value, weight.shape[2:], stride, dilation),
        dilation=dilation,
        groups=attributes.get("group", 1) * copies,
    )


@on_images
def conv_transpose(
    attributes: Attributes, copies: int, value: Value, weight: Tensor, bias: Any = None
) -> Value:
    """Along one axis or two; padded unevenly, it is cut from the one that is not padded."""
    axes = weight.ndim - 2
    if axes not in (1, 2):
        raise UnboundedModuleError(
            f"a transposed convolution is known along one or two axes, not {axes}"
        )
    stride = attributes.get("strides", [1] * axes)
    dilation = attributes.get("dilations", [1] * axes)
    more = attributes.get("output_padding", [0] * axes)
    whole = [
        (n - 1) * s + d * (k - 1) + 1
        for n, s, d, k in zip(value.shape[1:], stride, dilation, weight.shape[2:], strict=True)
    ]
    same = [n * s for n, s in zip(value.shape[1:], stride, strict=True)]
    sides = _cut(attributes, same, [w + m for w, m in zip(whole, more, strict=True)])
    weight, bias = copied(weight, copies), copied(bias, copies)
    if axes == 1:
        value = linear.reshaped(value, (value.shape[0], 1, value.shape[1]))
        weight, sides, whole = weight[:, :, None], [(0, 0), *sides], [1, *whole]
        stride, dilation, more = [1, *stride], [1, *dilation], [0, *more]
    even = all(before == after for before, after in sides)
    padding = [before if even else 0 for before, _ in sides]
    options = {"stride": on.pair_of(stride), "dilation": on.pair_of(dilation)}
    image = linear.transposed_convolution(
        value,
        weight,
        bias if even else None,
        padding=on.pair_of(padding),
        output_padding=on.pair_of(more) if even else (0, 0),
        groups=attributes.get("group", 1) * copies,
        **options,
    )
    if not even:
        (top, bottom), (left, right) = (
            (-before, extra - after) for (before, after), extra in zip(sides, more, strict=True)
        )
        image = linear.moved(image, lambda x: F.pad(x, (left, right, top, bottom)))
        image = image if bias is None else linear.shifted(image, bias.view(-1, 1, 1))
    return linear.reshaped(image, (image.shape[0], image.shape[2])) if axes == 1 else image


def _cut(attributes: Attributes, same: Sequence[int], whole: Sequence[int]) -> Sides:
    """Pixels that are cut off before and after, along each axis.

    Args:
        attributes: of the node.
        same: size of the result where it is as large as the stride makes the input.
        whole: size of the result where nothing is cut off.
    """
    axes, mode = len(whole), attributes.get("auto_pad", "NOTSET")
    wanted = attributes.get("output_shape")
    if wanted is None and mode in ("NOTSET", "VALID"):
        pads = attributes.get("pads", [0] * 2 * axes) if mode == "NOTSET" else [0] * 2 * axes
        return [(pads[i], pads[i + axes]) for i in range(axes)]
    wanted = same if wanted is None else wanted[-axes:]
    totals = [w - o for w, o in zip(whole, wanted, strict=True)]
    halves = [(total // 2, total - total // 2) for total in totals]
    return halves if mode == "SAME_UPPER" else [(more, less) for less, more in halves]


def _sides(
    attributes: Attributes,
    value: Value,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Sides:
    """Pixels before and after, along each axis."""
    axes, mode = len(kernel), attributes.get("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = attributes.get("pads", [0] * 2 * axes)
        return [(pads[i], pads[i + axes]) for i in range(axes)]
    if mode == "VALID":
        return [(0, 0)] * axes
    sides = []
    for n, k, s, d in zip(value.shape[1:], kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        less, more = total // 2, total - total // 2
        sides.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return sides


def _windows(attributes: Attributes, value: Value) -> pooling.Windows:
    """Kernel, stride, dilation and pixels around of a pooling, along all axes."""
    kernel = tuple(attributes.get("kernel_shape"))
    axes = len(kernel)
    fits = len(value.shape) == axes + 1
    linear.expect(value, f"(channels, and {axes} axes of pixels)", fits)
    stride = tuple(attributes.get("strides", [1] * axes))
    dilation = tuple(attributes.get("dilations", [1] * axes))
    sides = tuple(_sides(attributes, value, kernel, stride, dilation))
    return pooling.Windows(kernel, stride, dilation, sides, bool(attributes.get("ceil_mode", 0)))


@on_images
def max_pool(attributes: Attributes, _: int, value: Value) -> Value:
    """Padded with numbers below all others; its bound is that of the windows.

    The places of the maxima, which it may return too, jump.
    """
    return pooling.maxima(value, _windows(attributes, value))


@on_images
def average_pool(attributes: Attributes, _: int, value: Value) -> Value:
    """Averages over windows, one axis after the other."""
    counted = bool(attributes.get("count_include_pad", 0))
    return pooling.averages(value, _windows(attributes, value), counted=counted)


@on_images
def global_max(_: Attributes, __: int, value: Value) -> Value:
    """The largest number of each channel."""
    axes = tuple(range(2, len(value.shape) + 1))
    return along.extreme(value, axes, keep=True, largest=True)


class ResponseNorm(nn.Module):
    """Each number over a power of the squares of its neighbours among the channels."""

    def __init__(self, size: int, alpha: float, beta: float, bias: float) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.bias = size, alpha, beta, bias

    def forward(self, x: Tensor) -> Tensor:
        """``x (bias + alpha / size * squares) ** -beta``."""
        before = (self.size - 1) // 2
        squares = F.pad(x.square().movedim(1, -1), (before, self.size - 1 - before))
        sums = squares.unfold(-1, self.size, 1).sum(-1).movedim(-1, 1)
        return x * (self.bias + self.alpha / self.size * sums) ** -self.beta


@on_images
def response_norm(attributes: Attributes, copies: int, value: Value) -> Value:
    r"""Local response normalisation, :math:`y_i = x_i d_i^{-\beta}`, over s channels.

    With :math:`a = \alpha / s` and :math:`d_i = k + a \sum_j x_j^2` over the window of i, the
    Jacobian is :math:`\mathrm{diag}(d^{-\beta}) - M` with
    :math:`M_{ij} = 2 \beta a x_i x_j d_i^{-\beta - 1}`. As :math:`a |x_i| |x_j|` is at most
    :math:`d_i - k`, an entry of M is at most :math:`2 \beta c`, where
    :math:`c = k^{-\beta} \beta^\beta / (\beta + 1)^{\beta + 1}` is the largest value of
    :math:`(d - k) d^{-\beta - 1}`; a row adds up to :math:`\sqrt s` times that at most (Cauchy), a
    column to s times. So the norm is at most :math:`k^{-\beta} + 2 \beta c\, s^{3/4}` (Schur).
    """
    size, alpha = int(attributes.get("size")), float(attributes.get("alpha", 1e-4))
    beta, bias = float(attributes.get("beta", 0.75)), float(attributes.get("bias", 1.0))
    if copies > 1 or not (alpha >= 0 and beta > 0 and bias > 0 and size > 0):
        raise UnboundedModuleError("LRN is known of one image, and of positive settings")
    most = bias**-beta
    inner = most * beta**beta / (beta + 1) ** (beta + 1)
    constant = (most + 2 * beta * inner * size**0.75) * (1 + 1e-13)
    module = ResponseNorm(size, alpha, beta, bias)
    return value.activated(Opaque(module, constant, value.shape))
