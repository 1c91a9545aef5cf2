"""Convolutions whose kernels are 1: sums over windows, and circular padding."""

from dataclasses import replace

import torch
from torch import Tensor

from onelip.chains import Convolution
from onelip.norms.windows import overlap_of_sums, root_above


class Ones(Convolution):
    """A convolution with a kernel of 1 that follows the numbers' dtype, having none of its own."""

    def adjoint(self, y: Tensor) -> Tensor:
        """Adjoint of the convolution."""
        return Convolution.adjoint(replace(self, weight=self.weight.to(y)), y)

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return Convolution._convolved(replace(self, weight=self.weight.to(x)), x, bias)


class Windows(Ones):
    """Sums over windows, each channel by itself; the weight is 1 everywhere."""

    def norm(self) -> Tensor:
        """Exact on large images: what the taps of each phase of the stride add up to."""
        square = overlap_of_sums(list(zip(self.weight.shape[2:], self.stride, strict=True)))
        return torch.tensor(root_above(square), dtype=torch.float64)


class Wrapping(Ones):
    """Circular padding, as a convolution with one pixel of 1, merged into the next one."""
