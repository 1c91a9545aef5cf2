"""Truncated exponential of a skew-symmetric convolution (Singla, Feizi, ICML 2021), as a layer."""

import abc
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip import norms
from onelip.chains import (
    BoundedSum,
    Convolution,
    LinearMap,
    Scale,
    Shape,
    TruncatedExponential,
    composed,
    identity,
)
from onelip.chains.linear_layers import expect, moved, shifted
from onelip.chains.linear_map import reciprocal
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import (
    ABOVE,
    Local,
    Run,
    absolute_norm,
    additions,
    refuse_fast_convolutions,
    repeated,
)
from onelip.layers.channels import per_channel, unshuffled
from onelip.layers.constrained import check_channels
from onelip.layers.fixed_conv import check_image, check_image_size
from onelip.layers.soc_gradient import exact_series, fast_series
from onelip.lipschitz import LipschitzModule, bound_of_part
from onelip.norms.convolutions import check_padding_mode, is_circular, pair
from onelip.norms.exponential import truncated_exponential
from onelip.norms.rounding import exact


class SkewExponential(LipschitzModule):
    """Base of ``SOCConv2d`` and its export, which differ in where the kernel comes from."""

    bias: nn.Parameter | None
    exact_gradient = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int,
        padding_mode: str,
        image_size: int | tuple[int, int] | None,
        terms: int,
        groups: int = 1,
    ) -> None:
        super().__init__()
        check_padding_mode(padding_mode)
        check_channels(in_channels, out_channels, groups)
        sizes = (in_channels, out_channels, kernel_size, stride)
        if min(sizes) < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"channels, an odd kernel_size and stride must be positive, got {sizes}"
            )
        if terms < 2:
            raise ValueError(f"a series of {terms} terms has no kernel in it: terms=5 or more")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.terms = kernel_size, stride, terms
        self.padding_mode, self.groups = padding_mode, groups
        self.image_size = None if image_size is None else pair(image_size)
        self._check_sides()

    def _check_sides(self) -> None:
        """Refuse sides that the stride does not divide, or a kernel that wraps more than once."""
        if self.image_size is None:
            return
        if any(side % self.stride for side in self.image_size):
            raise ValueError(
                f"stride={self.stride} must divide the image's sides {self.image_size}: pad it"
            )
        if self.padding_mode == "circular" and self.kernel_size // 2 > min(self.sides or ()):
            raise ValueError(
                f"kernel_size={self.kernel_size} wraps more than once around an image of "
                f"{self.sides} after the stride: padding_mode='zeros'"
            )

    @property
    def channels(self) -> int:
        """Number of channels of the skew convolution, which has as many in each group."""
        return max(self.in_channels * self.stride**2, self.out_channels)

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Shape of the skew kernel."""
        return self.channels, self.channels // self.groups, self.kernel_size, self.kernel_size

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width of the images that are convolved; None for any."""
        if self.image_size is None:
            return None
        return self.image_size[0] // self.stride, self.image_size[1] // self.stride

    @abc.abstractmethod
    def kernel(self) -> Tensor:
        """Return the skew kernel in use."""

    def forward(self, x: Tensor) -> Tensor:
        """Unshuffle pixels, add channels of zeros, exponentiate, keep the first channels."""
        check_image_size(x, self.image_size)
        x = self._widen(x)
        series = exact_series if self.exact_gradient else fast_series
        z = self._narrow(series(x, self.kernel(), self.terms, self.padding_mode, self.groups))
        return z if self.bias is None else z + per_channel(self.bias, z.shape[1])

    def lipschitz_bound(self) -> Tensor:
        """Proved bound from the norm of the kernel in use and the number of terms.

        Raises:
            UnboundedModuleError: the kernel was overwritten by one that is not skew.
        """
        kernel, norm = self.kernel(), self._norm()
        if self.bias is not None:
            per_channel(self.bias, min(self.out_channels, len(kernel)))
        blocks = kernel.unflatten(0, (self.groups, -1))
        # exactly skew, bit by bit: only then are the eigenvalues imaginary
        if not torch.equal(blocks, -blocks.flip(3, 4).transpose(1, 2)):
            raise UnboundedModuleError(
                "the kernel is no longer skew, so nothing is known of its exponential"
            )
        return truncated_exponential(norm, self.terms)

    def _norm(self) -> Tensor:
        """Proved norm of the skew convolution."""
        return norms.convolution(
            self.kernel(),
            image_size=self.sides,
            padding=self.kernel().shape[-1] // 2,
            padding_mode=self.padding_mode,
            groups=self.groups,
        )

    def extra_repr(self) -> str:
        """Arguments, printed as torch prints those of convolutions."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding_mode={self.padding_mode}, terms={self.terms}"
        )

    def to_chain(self, value: Value) -> Value:
        """Read the layer as its series by Horner's rule, with the norm that the layer proves."""
        size = None if self.image_size is None else pair(self.image_size)
        check_image(value, size, pair(self.stride), "circular")
        expect(value, f"({self.in_channels}, ...)", value.shape[0] == self.in_channels)
        image = moved(value, self._widen)
        conv = self._convolution(image.shape)
        series: LinearMap = identity(image.shape)
        for i in range(self.terms - 1, 0, -1):
            share = Scale(image.shape, reciprocal(torch.tensor(float(i))), operations=1)
            # only the outermost sum is the whole series, for which the layer proves a norm
            parts = identity(image.shape), composed([series, conv, share])
            if i > 1:
                series = BoundedSum(parts)
            else:
                series = TruncatedExponential(parts, bound_of_part(self), conv, self.terms)
        whole = moved(image.then(series), self._narrow)
        if self.bias is None:
            return whole
        return shifted(whole, per_channel(self.bias, whole.shape[0]))

    def _widen(self, x: Tensor) -> Tensor:
        """Unshuffle pixels, and append channels of zeros."""
        if self.stride > 1:
            x = unshuffled(x, self.stride)
        missing = (self.channels - self.in_channels * self.stride**2) // self.groups
        if not missing:
            return x
        if self.groups == 1:
            return F.pad(x, (0, 0, 0, 0, 0, missing))
        by_group = x.unflatten(1, (self.groups, -1))
        return F.pad(by_group, (0, 0, 0, 0, 0, missing)).flatten(1, 2)

    def _narrow(self, z: Tensor) -> Tensor:
        """Keep the first channels of each group."""
        if self.groups == 1:
            return z[:, : self.out_channels]
        by_group: Tensor = z.unflatten(1, (self.groups, -1))
        return by_group[:, :, : self.out_channels // self.groups].flatten(1, 2)

    def _convolution(self, shape: Shape) -> Convolution:
        """Return the skew convolution in use, as a linear map."""
        kernel = self.kernel()
        if self.groups > 1:  # series are known of one group: the others' taps are zeros
            blocks = kernel.unflatten(0, (self.groups, -1))
            eye = torch.eye(self.groups, dtype=kernel.dtype, device=kernel.device)
            wide = blocks[:, :, None] * eye[:, None, :, None, None, None]
            kernel = wide.flatten(2, 3).flatten(0, 1)
        around = pair(kernel.shape[-1] // 2)
        circular = is_circular(self.padding_mode)
        return Convolution(shape, kernel, padding=around, circular=circular)


class FixedSOCConv2d(SkewExponential):
    """Truncated exponential of a fixed skew kernel, to which ``SOCConv2d`` exports.

    Bound: that of ``SOCConv2d``; exactly 1 for 13 terms and a kernel of norm up to 3.37.
    Shape: that of ``SOCConv2d``.
    Cost: ``terms - 1`` convolutions.

    Args:
        weight: a skew kernel ``(c, c / groups, k, k)``, c the larger of ``in_channels * stride^2``
            and ``out_channels``.
        bias: ``(out_channels,)``, or None.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: must divide the image.
        padding_mode: ``"circular"`` or ``"zeros"``.
        image_size: size of the images for which the bound is proved; None for every size.
        terms: number of terms of the series.
        groups: blocks of channels.

    Raises:
        ValueError: a weight of another shape, or an argument that ``SOCConv2d`` refuses.

    Example:
        >>> turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])[..., None, None]
        >>> layer = FixedSOCConv2d(turn, None, 2, 2)  # by one radian
        >>> layer(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)).flatten().detach()
        tensor([ 0.5403, -0.8415])
    """

    same_in_float64 = True

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        padding_mode: str = "circular",
        image_size: int | tuple[int, int] | None = None,
        terms: int = 13,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            weight.shape[-1],
            stride=stride,
            padding_mode=padding_mode,
            image_size=image_size,
            terms=terms,
            groups=groups,
        )
        shape = self.kernel_shape
        if weight.shape != shape:
            raise ValueError(f"the skew kernel must have shape {shape}, got {tuple(weight.shape)}")
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @override
    def kernel(self) -> Tensor:
        return self.weight

    def forward_error(self, run: Run) -> Local:
        """Rounding of Horner's rule ``u = x + conv(u) / i``, ``1 / i`` rounded, and of the bias."""
        refuse_fast_convolutions(self.weight)
        sides = tuple(side // self.stride for side in run.x.shape[1:])
        size = self.channels * math.prod(sides)
        norm = float(self._norm())
        conv = _square_conv(self.weight, self.padding_mode, self.groups)
        shape = self.channels, *sides
        absolute = absolute_norm(conv, shape)
        most = int(additions(conv, shape).max())
        middle = (absolute + min(absolute, norm)) / 2 * ABOVE  # of the larger half of the terms
        arithmetic, u, error = run.arithmetic, run.x.reach, 0.0 * run.x.reach
        for i in range(self.terms - 1, 0, -1):
            # one more step: the error so far, carried on by norm / i, plus new rounding
            reach = u + error
            inside = arithmetic.summation(most, absolute * reach, middle * reach, size)
            branch = (norm * reach + inside) / i
            error = (norm * error + inside) / i
            error = error + arithmetic.rounding(5, run.x.reach + branch, size)
            u = run.x.reach + norm * u / i
        offset = 0.0 if self.bias is None else repeated(exact(self.bias).cpu(), run)
        return Local(offset, error + run.rounding(1, u + error + offset))


def _square_conv(weight: Tensor, padding_mode: str, groups: int) -> nn.Conv2d:
    """Return the convolution with this weight that keeps the image's size."""
    channels, _, side, _ = weight.shape
    around: dict[str, Any] = {"padding": side // 2, "padding_mode": padding_mode, "groups": groups}
    conv = nn.Conv2d(channels, channels, side, bias=False, device="meta", **around)
    conv.weight = nn.Parameter(weight.detach())
    return conv
