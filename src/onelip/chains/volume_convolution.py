"""Convolutions along three axes, as linear maps."""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv3d_input

from onelip.chains.linear_map import LinearMap, Shape, convolved, error_of_product
from onelip.norms.functional import conv3d
from onelip.norms.rounding import exact, frobenius

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class VolumeConvolution(LinearMap):
    """``conv3d`` on volumes ``(channels, depth, height, width)``, padded with zeros."""

    inputs: Shape
    weight: Tensor
    bias: Tensor | None = None
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
    groups: int = 1

    @property
    def outputs(self) -> Shape:  # type: ignore[override]
        """Channels, depth, height, width."""
        settings = self.padding, self.dilation, self.stride
        return convolved(self.inputs, self.weight.shape, *settings)

    def __call__(self, x: Tensor) -> Tensor:
        """The convolution."""
        return self._convolved(x, None)

    def affine(self, x: Tensor) -> Tensor:
        """Convolution with the bias."""
        return self._convolved(x, self.bias)

    def adjoint(self, y: Tensor) -> Tensor:
        """The gradient of the convolution with respect to its input."""
        x: Tensor = conv3d_input(
            (len(y), *self.inputs),
            self.weight,
            y,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        )
        return x

    def exact(self) -> "VolumeConvolution":
        """Map in float64 on the CPU."""
        bias = None if self.bias is None else exact(self.bias)
        return replace(self, weight=exact(self.weight), bias=bias)

    @cached_property
    def rounding(self) -> float:
        """Each output is a product of the kernel and a patch, whose voxels may repeat."""
        outputs, columns, *kernel = self.weight.shape
        terms = max(columns, outputs // self.groups) * math.prod(kernel)
        size = float(frobenius(exact(self.weight).flatten(1)))
        patches = math.prod(self.outputs[1:]) * math.prod(kernel)
        return error_of_product(terms, size * math.sqrt(patches))

    def norm(self) -> Tensor:
        """Norm of the convolution on volumes of this size."""
        return conv3d(
            self.weight,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
            input_size=self.inputs[1:],
        ).cpu()

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        settings = (self.stride, self.padding, self.dilation, self.groups)
        return F.conv3d(x, self.weight, bias, *settings)
