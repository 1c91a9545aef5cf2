"""Base classes of layers whose weight is a function of free parameters.

A family writes ``compute_weight`` (and, to be computed in batches, ``compute_weights``). The bound
is proved for the computed weight and relies on no property of the construction. ``export`` returns
a plain ``nn.Linear`` or ``nn.Conv2d``.
"""

import abc
import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip import norms
from onelip.autocast import no_autocast
from onelip.chains.linear_layers import convolution, dense
from onelip.chains.value import Value
from onelip.layers.fixed_conv import FixedConv2d, check_image, check_image_size, check_whole_strides
from onelip.layers.options import FactoryOptions, Padding, Size, both
from onelip.lipschitz import LipschitzModule, overridable
from onelip.lipschitz.torch_modules import sides_of
from onelip.norms.convolutions import Pair, check_padding_mode, is_circular, pair

_OF_A_CONTEXT = ("begun", "_held", "own_power_steps")


class ComputedOnce(LipschitzModule):
    """A layer whose weight takes work that is independent of the input; see ``computed_once``."""

    begun = False
    """Whether a context holds the result; it alone sets this."""

    @abc.abstractmethod
    def batch_key(self) -> object:
        """Key of the layers that do that work together: those of equal keys."""

    @classmethod
    @abc.abstractmethod
    def begin(cls, layers: Sequence[Any]) -> None:
        """Do that work for layers of equal keys, and keep the results until ``end``."""

    @abc.abstractmethod
    def end(self) -> None:
        """Drop the result."""

    def __getstate__(self) -> dict[str, Any]:
        """State without the results of a context: a copy computes its own from its parameters."""
        return {name: value for name, value in vars(self).items() if name not in _OF_A_CONTEXT}


class PowerSteps(ComputedOnce):
    """A layer that takes one power iteration, or a few, in each training step.

    A training step is recognised by changed weights. In training mode ``forward`` takes a power
    step if the weights have changed since the last one. If not, it repeats the same numbers: under
    gradient checkpointing, with several forward passes before one backward pass, and with
    gradient accumulation. In eval mode, and in queries, the direction stays as it is.
    """

    known: Tensor
    """Checksum of the weights at the last power step."""

    def forget(self) -> None:
        """Take a power step in the next forward pass, whatever the weights."""
        self.register_buffer("known", torch.tensor(-1, device=self.stepped_weight().device))

    @abc.abstractmethod
    def stepped_weight(self) -> Tensor:
        """Return the free weight whose norm the power iterations estimate."""

    @torch.no_grad()
    def changed(self) -> Tensor:
        """Return whether the weight has changed since the last call: 0-d, boolean."""
        new = checksum(self.stepped_weight())
        other = new != self.known
        self.known.copy_(new)
        return other

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Load a state, also one that was saved before ``known`` existed."""
        state_dict.setdefault(f"{prefix}known", torch.tensor(-1))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


class ConstrainedLayer(ComputedOnce):
    """A layer whose weight is a function of free parameters."""

    _held: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The weight that ``forward`` uses now, never computed in half precision."""
        if self._held is not None:
            return self._held
        with full_precision(next(self.parameters())):
            return self.compute_weight()

    @abc.abstractmethod
    def compute_weight(self) -> Tensor:
        """Compute the weight from the parameters."""

    @classmethod
    @overridable
    def compute_weights(cls, layers: Sequence[Self]) -> list[Tensor]:
        """Compute the weights of layers of equal keys; families that batch override it."""
        return [layer.compute_weight() for layer in layers]

    @overridable
    def batch_key(self) -> object:
        """Key of the layers that compute together; by default a layer computes alone."""
        return id(self)

    @classmethod
    @overridable
    def begin(cls, layers: Sequence[Self]) -> None:
        """Compute the weights once."""
        with full_precision(next(layers[0].parameters())):
            for layer, weight in zip(layers, cls.compute_weights(layers), strict=True):
                layer._held = weight

    def end(self) -> None:
        """Compute the weight anew from now on."""
        self._held = None

    @torch.no_grad()
    def fixed_weight(self) -> Tensor:
        """Return the weight for ``export``, computed in float64 and rounded once."""
        # in float64 the construction adds no error beside the last rounding
        twin = copy.deepcopy(self).eval().double()
        return twin.compute_weight().to(next(self.parameters()).dtype)


class ConstrainedLinear(ConstrainedLayer):
    """``W x + b`` with a constrained W."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(f"features must be positive, got {in_features} and {out_features}")
        self.in_features, self.out_features = in_features, out_features
        self.bias = nn.Parameter(torch.zeros(out_features, **factory)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``W x + b``."""
        return F.linear(x, self.weight, self.bias)

    def lipschitz_bound(self) -> Tensor:
        """The proved norm of the weight in use."""
        return norms.dense(self.weight)

    def export(self) -> nn.Linear:
        """Return a plain linear layer with the weight in use."""
        return plain_linear(self.fixed_weight(), self.bias)

    def extra_repr(self) -> str:
        """Arguments, printed as torch prints those of linear layers."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def to_chain(self, value: Value) -> Value:
        """Read the layer as the matrix in use."""
        return dense(value, self.weight, self.bias)


class KernelLayer(ConstrainedLayer):
    """A layer with a constrained kernel: a convolution of images or sequences, or an adjoint.

    The kernel has two axes, rows and columns. A sequence is an image of one row.
    """

    kernel_size: Pair
    stride: Pair
    dilation: Pair

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Pair,
        stride: Pair,
        dilation: Pair,
        groups: int,
        bias: bool,
        padding_mode: str,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        check_padding_mode(padding_mode)
        check_channels(in_channels, out_channels, groups, *kernel_size, *stride, *dilation)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        self.padding_mode = padding_mode
        self.bias = nn.Parameter(torch.zeros(out_channels, **factory)) if bias else None

    @property
    def group_channels(self) -> Pair:
        """Channels of one group that the kernel reads and writes, as a convolution."""
        return self.in_channels // self.groups, self.out_channels // self.groups


class ConstrainedConv2d(KernelLayer):
    """A convolution with a constrained kernel; ``options.py`` describes the arguments."""

    def __init__(  # noqa: PLR0917 torch's order
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = None,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "circular",
        *,
        image_size: Size | None = None,
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
        self.padding = padding_of(padding, self.kernel_size, self.stride, self.dilation)
        self.image_size = None if image_size is None else pair(image_size)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the weight in use, and add the bias."""
        check_image_size(x, self.image_size)
        check_whole_strides(x, pair(self.stride), self.padding_mode)
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve as ``nn.Conv2d`` does, with the given weight and the layer's padding."""
        padding: Any = self.padding
        if is_circular(self.padding_mode):
            rows, columns = sides_of(weight, padding, pair(self.dilation))
            if any(rows + columns):
                x = F.pad(x, columns + rows, mode="circular")
            padding = 0
        return F.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def lipschitz_bound(self) -> Tensor:
        """The proved norm of the kernel in use, for ``image_size`` or for every size."""
        return norms.convolution(
            self.weight,
            image_size=self.image_size,
            padding=self.padding,
            padding_mode=self.padding_mode,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            whole_strides=True,
        )

    def export(self) -> nn.Conv2d | FixedConv2d:
        """Return a plain convolution, in a ``FixedConv2d`` where its proof depends on the image."""
        circular = is_circular(self.padding_mode)
        plain = plain_convolution(self, self.fixed_weight())
        # under zeros or stride 1 the norm bound holds for every image: no check is needed
        free = max(pair(self.stride)) == 1 or not circular
        if free and self.image_size is None:
            return plain
        return FixedConv2d(plain, image_size=self.image_size)

    def extra_repr(self) -> str:
        """Arguments, printed as torch prints those of convolutions."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, padding={self.padding!r}, padding_mode={self.padding_mode}"
        )

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a convolution with the kernel in use."""
        weight, dilation = self.weight, pair(self.dilation)
        check_image(value, self.image_size, pair(self.stride), self.padding_mode)
        return convolution(
            value,
            weight,
            self.bias,
            stride=pair(self.stride),
            sides=sides_of(weight, self.padding, dilation),
            dilation=dilation,
            groups=self.groups,
            circular=is_circular(self.padding_mode),
        )


def padding_of(padding: Padding, kernel_size: Pair, stride: Pair, dilation: Pair) -> str | Pair:
    """Return a padding as ``nn.Conv2d`` takes it, in which None, or ``"same"``, is worked out.

    Raises:
        ValueError: an unknown or negative padding, or one that would differ along one axis.
    """
    if padding is None or (padding == "same" and max(stride) > 1):
        if max(stride) == 1:
            return "same"
        rows, columns = map(_centred, kernel_size, stride, dilation)
        return rows, columns
    if isinstance(padding, str) and padding in ("same", "valid"):
        return padding
    message = f"padding must be a number of pixels, or two, 'same' or 'valid', got {padding!r}"
    if isinstance(padding, str):
        raise ValueError(message)
    numbers = both(padding, "padding")
    if min(numbers) < 0:
        raise ValueError(message)
    return numbers


def _centred(taps: int, stride: int, dilation: int) -> int:
    """Pixels on each side for which the output has the image's size divided by the stride.

    Raises:
        ValueError: there is no such number.
    """
    reach = dilation * (taps - 1) + 1
    if stride == 1 and reach % 2 == 0:
        raise ValueError(
            f"an axis of stride 1 beside one of a stride needs an odd kernel_size, got {taps}: "
            "give the padding, or take an odd one"
        )
    return max(0, reach - stride + 1) // 2 if stride > 1 else reach // 2


def plain_convolution(layer: Any, weight: Tensor) -> nn.Conv2d:
    """Return ``nn.Conv2d`` with this weight, and all else as a constrained layer has it."""
    plain = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        stride=layer.stride,
        padding=layer.padding,
        padding_mode=layer.padding_mode,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
        device="meta",
    )
    fill(plain, weight, layer.bias)
    return plain


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(weight: Tensor) -> Tensor:
    """Return an integer checksum of the bits of a weight, 0-d int64.

    Sums of integers do not depend on their order, so the result is the same on every device and in
    every run. A permutation of the rows changes it, one of the columns does not.
    """
    rows = weight.detach().flatten(1).contiguous()
    bits = rows.view(_BITS[rows.element_size()])
    if bits.dtype != torch.int32 or bits.shape[1] % 2:
        sums = bits.sum(1, dtype=torch.int64)
    elif torch.compiler.is_compiling() or rows.storage_offset() % 2:
        low, high = bits[:, ::2].long() & 0xFFFFFFFF, bits[:, 1::2].long()
        sums = (low + (high << 32)).sum(1)
    else:  # the same numbers, two at a time: five times as fast
        sums = rows.view(torch.int64).sum(1)
    # odd factors are invertible modulo 2^64: a change in one row never cancels itself
    odd = 2 * torch.arange(len(sums), device=sums.device) + 1
    return (odd * sums).sum()


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Context in which autocast is off: it must not decide about contraction."""
    return no_autocast(tensor.device.type)


def check_channels(in_channels: int, out_channels: int, groups: int, *sizes: int) -> None:
    """Check that a convolution can be built from these numbers.

    Raises:
        ValueError: a number is not positive, or the groups do not divide the channels.
    """
    numbers = (in_channels, out_channels, groups, *sizes)
    if min(numbers) < 1:
        raise ValueError(f"channels, sizes, stride and groups must be positive, got {numbers}")
    if in_channels % groups or out_channels % groups:
        raise ValueError(f"groups={groups} must divide {in_channels} and {out_channels} channels")


@torch.no_grad()
def orthogonal_(matrix: Tensor) -> Tensor:
    """Fill a matrix as ``nn.init.orthogonal_`` does, which has no half precision."""
    single = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    return matrix.copy_(nn.init.orthogonal_(single))


def plain_linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Return ``nn.Linear`` with this weight and a copy of the bias, without drawing numbers."""
    outputs, inputs = weight.shape
    plain = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    fill(plain, weight, bias)
    return plain


def fill(plain: Any, weight: Tensor, bias: Tensor | None) -> None:
    """Give a plain linear layer or convolution its weight, and a copy of the bias."""
    plain.weight = nn.Parameter(weight.contiguous())
    plain.bias = None if bias is None else nn.Parameter(bias.detach().clone())
