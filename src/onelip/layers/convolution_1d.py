"""Base of convolutions of sequences with a constrained kernel: images of one row."""

import operator
from typing import Any, Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from onelip import norms
from onelip.chains.linear_layers import Sides, convolution, expect, reshaped
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.layers.constrained import KernelLayer, padding_of, plain_convolution
from onelip.layers.fixed_conv import FixedConv2d, check_image, check_whole_strides
from onelip.layers.options import FactoryOptions
from onelip.lipschitz.torch_modules import sides_of
from onelip.norms.convolutions import check_padding_mode, is_circular, pair

Length = int | tuple[int]
"""One number, also as torch keeps it."""


class ConstrainedConv1d(KernelLayer):
    """A convolution of sequences with a constrained kernel ``(out, in, 1, k)``.

    ``kernel_size``, ``stride``, ``padding`` and ``dilation`` are kept as those of an image of one
    row. The arguments are those of ``nn.Conv1d``; ``options.py`` describes them.
    """

    def __init__(  # noqa: PLR0917 torch's order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Length,
        stride: Length = 1,
        padding: Length | str | None = None,
        dilation: Length = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "circular",
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=(1, one(kernel_size, "kernel_size")),
            stride=(1, one(stride, "stride")),
            dilation=(1, one(dilation, "dilation")),
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            **factory,
        )
        numbers = padding is None or isinstance(padding, str)
        around: Any = padding if numbers else (0, one(padding, "padding"))
        # "same" of an even kernel pads one more on the right, as torch does
        self.padding = padding_of(around, self.kernel_size, self.stride, self.dilation)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the sequence with the weight in use, as an image of height 1."""
        image = x.unsqueeze(-2)
        check_whole_strides(image, pair(self.stride), self.padding_mode)
        weight, padding = self.weight, self.padding
        rows, columns = self._sides(weight)
        if is_circular(self.padding_mode):
            image = F.pad(image, columns + rows, mode="circular")
            padding = (0, 0)
        y = F.conv2d(image, weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return y.squeeze(-2)

    def _sides(self, weight: Tensor) -> Sides:
        """Return the pixels before and after, by the padding in use.

        Raises:
            UsageError: the padding was changed to one of rows, of which a sequence has one.
        """
        sides = sides_of(weight, self.padding, pair(self.dilation))
        if any(sides[0]):
            raise UsageError(f"padding={self.padding} of a sequence pads rows: (0, pixels)")
        return sides

    def lipschitz_bound(self) -> Tensor:
        """The proved norm of the kernel in use."""
        return norms.convolution(
            self.weight,
            padding=self.padding,
            padding_mode=self.padding_mode,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            whole_strides=True,
        )

    def export(self) -> nn.Sequential:
        """Return a plain convolution of images of height 1, between two views."""
        check_padding_mode(self.padding_mode)
        weight = self.fixed_weight()
        self._sides(weight)
        fixed = FixedConv2d(plain_convolution(self, weight), image_size=None)
        return nn.Sequential(nn.Unflatten(2, (1, -1)), fixed, nn.Flatten(2))

    def extra_repr(self) -> str:
        """Arguments, printed as torch prints those of convolutions."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size[1]}, "
            f"stride={self.stride[1]}, padding_mode={self.padding_mode}"
        )

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a convolution of images of one row with the kernel in use."""
        weight, stride = self.weight, pair(self.stride)
        expect(value, "(channels, length)", len(value.shape) == 2)
        rows = reshaped(value, (value.shape[0], 1, value.shape[1]))
        check_image(rows, None, stride, self.padding_mode)
        image = convolution(
            rows,
            weight,
            self.bias,
            stride=stride,
            sides=self._sides(weight),
            dilation=pair(self.dilation),
            groups=self.groups,
            circular=is_circular(self.padding_mode),
        )
        return reshaped(image, (image.shape[0], image.shape[2]))


def one(value: Any, name: str) -> int:
    """Return the one number of an argument.

    Raises:
        ValueError: it is not one whole number.
    """
    given = value if isinstance(value, tuple | list) else (value,)
    try:
        (number,) = map(operator.index, given)
    except (TypeError, ValueError):
        message = f"{name} of a sequence must be one whole number, got {value!r}"
        raise ValueError(message) from None
    return number
