"""Convolutions along one and three axes, written as convolutions of images.

Along the depth a volume's channels at each place are channels of an image, so that a kernel of
three axes is one of two whose matrices are banded: no number of it is a sum.
"""

from dataclasses import replace
from typing import Any

from torch import nn

from onelip.chains import Adjoint, Convolution, LinearMap, Reshape, composed
from onelip.chains.linear_map import Shape
from onelip.chains.volume_convolution import VolumeConvolution


def of_images(volume: VolumeConvolution) -> Convolution:
    """The convolution with the channels at each depth as channels, of ``(channels depth, ...)``."""
    weight, (channels, depth, *size) = volume.weight, volume.inputs
    (outputs, deep), (_, each, taps, *kernel) = volume.outputs[:2], weight.shape
    banded = weight.new_zeros(outputs, deep, channels, depth, *kernel)
    share = outputs // volume.groups
    for output in range(outputs):
        group = slice(output // share * each, (output // share + 1) * each)
        for place in range(deep):
            for tap in range(taps):
                look = place * volume.stride[0] + tap * volume.dilation[0] - volume.padding[0]
                if 0 <= look < depth:
                    banded[output, place, group, look] = weight[output, :, tap]
    bias = None if volume.bias is None else volume.bias.repeat_interleave(deep)
    pairs = (tuple(x[1:]) for x in (volume.stride, volume.padding, volume.dilation))
    images = channels * depth, *size
    joined = banded.reshape(outputs * deep, channels * depth, *kernel)
    return Convolution(images, joined, bias, *pairs)  # type: ignore[arg-type]


def unfolded(linear: VolumeConvolution | Adjoint) -> LinearMap:
    """A convolution of volumes, or the adjoint of one, by images."""
    if isinstance(linear, VolumeConvolution):
        inner: LinearMap = of_images(linear)
    else:
        assert isinstance(linear.of, VolumeConvolution)
        bias, deep = linear.bias, linear.outputs[1]
        bias = None if bias is None else bias.repeat_interleave(deep)
        inner = Adjoint(of_images(replace(linear.of, bias=None)), bias)
    around = Reshape(linear.inputs, inner.inputs), Reshape(inner.outputs, linear.outputs)
    return composed([around[0], inner, around[1]])


def transposed(module: Any, inputs: Shape, outputs: Shape) -> LinearMap | None:
    """``ConvTranspose1d`` or ``ConvTranspose3d`` as an adjoint; None for another module."""
    if type(module) not in (nn.ConvTranspose1d, nn.ConvTranspose3d):
        return None
    weight, bias = module.weight.detach(), module.bias
    bias = None if bias is None else bias.detach()
    settings = module.stride, module.padding, module.dilation
    if type(module) is nn.ConvTranspose3d:
        volume = VolumeConvolution(outputs, weight, None, *settings, module.groups)
        return unfolded(Adjoint(volume, bias))
    (s, p, d), (channels, side) = (x[0] for x in settings), outputs
    image = channels, 1, side
    of = Convolution(image, weight[:, :, None], None, (1, s), (0, p), (1, d), module.groups)
    adjoint = Adjoint(of, bias)
    around = Reshape(inputs, adjoint.inputs), Reshape(image, outputs)
    return composed([around[0], adjoint, around[1]])
