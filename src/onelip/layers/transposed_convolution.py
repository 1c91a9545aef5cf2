"""Base of transposed convolutions with a constrained kernel: adjoints, which enlarge images."""

from typing import Unpack

from torch import Tensor, nn
from torch.nn import functional as F

from onelip import norms
from onelip.chains.linear_layers import transposed_convolution
from onelip.chains.value import Value
from onelip.layers.constrained import KernelLayer, fill
from onelip.layers.options import FactoryOptions, Size, both
from onelip.norms.convolutions import Pair, pair


class ConstrainedConvTranspose2d(KernelLayer):
    """A transposed convolution with a constrained kernel, which it stores as torch does.

    The arguments are those of ``nn.ConvTranspose2d``, in its order. ``padding`` crops the output;
    None crops it to the input's sides times the stride.
    """

    def __init__(  # noqa: PLR0917 torch's order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | None = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size=both(kernel_size, "kernel_size"),
            stride=both(stride, "stride"),
            dilation=both(dilation, "dilation"),
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            **factory,
        )
        if padding_mode != "zeros":
            raise ValueError(
                f"a transposed convolution crops and wraps nothing, here as in torch: "
                f"padding_mode='zeros', got {padding_mode!r}"
            )
        self.padding, self.output_padding = self._cropping(padding, output_padding)

    def _cropping(self, padding: Size | None, output_padding: Size) -> tuple[Pair, Pair]:
        """Return padding and output padding.

        Raises:
            ValueError: negative ones, an output padding that torch refuses, both asked and worked
                out, or none that fits.
        """
        more = both(output_padding, "output_padding")
        steps = list(zip(self.stride, self.dilation, self.kernel_size, strict=True))
        reaches = [d * (k - 1) + 1 for _, d, k in steps]
        if padding is None:
            if any(more):
                raise ValueError("padding=None works output_padding out: leave it out")
            twos = [max(0, n - s + 1) // 2 for n, (s, _, _) in zip(reaches, steps, strict=True)]
            around = (twos[0], twos[1])
            rest = [s - n + 2 * p for n, p, (s, _, _) in zip(reaches, twos, steps, strict=True)]
            more = (rest[0], rest[1])
        else:
            around = both(padding, "padding")
        if min(around + more) < 0:
            raise ValueError(f"paddings must be at least 0, got {padding} and {output_padding}")
        if any(m >= max(s, d) for m, (s, d, _) in zip(more, steps, strict=True)):
            raise ValueError(
                f"output_padding must be below stride or dilation, got {more}: with padding=None, "
                "kernel_size must be odd for stride 1"
            )
        return around, more

    @property
    def group_channels(self) -> Pair:
        """Channels of one group that the kernel reads and writes, as that of the adjoint."""
        return self.out_channels // self.groups, self.in_channels // self.groups

    def forward(self, x: Tensor) -> Tensor:
        """Apply the transposed convolution with the weight in use."""
        return F.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )

    def lipschitz_bound(self) -> Tensor:
        """The proved norm of the kernel in use, for every size of the input."""
        return norms.conv_transpose2d(
            self.weight,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            groups=self.groups,
            dilation=self.dilation,
        )

    def export(self) -> nn.ConvTranspose2d:
        """Return a plain transposed convolution."""
        plain = nn.ConvTranspose2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            groups=self.groups,
            bias=self.bias is not None,
            dilation=self.dilation,
            device="meta",
        )
        fill(plain, self.fixed_weight(), self.bias)
        return plain

    def extra_repr(self) -> str:
        """Arguments, printed as torch prints those of convolutions."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding}, output_padding={self.output_padding}"
        )

    def to_chain(self, value: Value) -> Value:
        """Read the layer as the adjoint of the convolution with the kernel in use."""
        return transposed_convolution(
            value,
            self.weight,
            self.bias,
            stride=pair(self.stride),
            padding=pair(self.padding),
            output_padding=pair(self.output_padding),
            groups=self.groups,
            dilation=pair(self.dilation),
        )
