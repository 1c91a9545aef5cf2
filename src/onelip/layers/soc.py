r"""Skew Orthogonal Convolutions (Singla, Feizi, ICML 2021).

A kernel minus that of its adjoint, :math:`L = M - M^*`, convolves as a skew-symmetric matrix, so
its exponential is orthogonal. A truncated series of it is not: its norm is bounded by a proved norm
of L and the number of terms (``norms/exponential.py``). Below a norm of 2.8 the bound is 1 for 5, 9
or 13 terms, and at most 1.005 for 6.

A short series needs a small norm, so L is divided by an estimate of it: the norm of its numbers as
a matrix, :math:`c \times c k^2` or :math:`c k \times c k`, whichever is smaller. k times either is
above the norm of the convolution (Singla, Feizi, "Fantastic Four", ICLR 2021; the other two of the
four matrices have the same norms, since L is skew). One warm-started power iteration per step comes
close enough. The bound does not rely on this estimate.
"""

from collections.abc import Iterator, Sequence
from typing import Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip.estimates import usable
from onelip.layers.constrained import ConstrainedLayer, PowerSteps, full_precision
from onelip.layers.options import FactoryOptions, Size, square
from onelip.layers.skew_exponential import FixedSOCConv2d, SkewExponential

_EPSILON = 1e-6  # added to the estimate: kernels of zeros stay what they are
_WARM_UP = 50  # power iterations at construction


def skew(kernels: Tensor) -> Tensor:
    """Return kernels ``(..., c, c, k, k)`` minus those of their adjoints: skew to the last bit."""
    return kernels - kernels.flip(-2, -1).transpose(-4, -3)


class SOCConv2d(PowerSteps, ConstrainedLayer, SkewExponential):
    r"""Skew Orthogonal Convolution: a truncated series of ``exp(L) x``, plus b.

    A stride moves pixels into channels first. Missing channels are zeros, channels in excess are
    dropped. Up to the truncation, the whole is an isometry on the smaller side.

    Bound: the largest ``|sum_{i < terms} (i theta)^i / i!|`` with theta up to the proved norm of L:
    exactly 1 for 5, 9 or 13 terms, at most 1.0048 for 6, if that norm is below 2.8.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: ``terms - 1`` convolutions of ``max(in_channels stride^2, out_channels)`` channels, and
    six products of a vector with a matrix of as many numbers as the kernel.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: side of the kernel; the skew kernel of an even one has a side of one more.
        stride: must divide the image's sides.
        padding_mode: ``"circular"``, the default, or ``"zeros"``.
        image_size: size of the images for which the bound is proved; None for every size.
        terms: number of terms of the series; 5 in the first paper, 6 in the second.
        export_terms: number of terms after ``export``; 12 in the first paper, 15 in the second.
        correction: value to which the estimate of the norm of L is scaled; None for the 0.7 of the
            papers, or 1 for a kernel of 1 x 1. The norm of the convolution is up to k times that.
        exact_gradient: whether the kernel gets its exact gradient instead of the second paper's
            (``soc_gradient.py``); a third to a half slower.
        groups: blocks of channels, each with a series of its own.
        bias: whether to add one number per channel.
        **factory: ``device`` and ``dtype`` of parameters and buffers.

    Raises:
        ValueError: groups that do not divide the channels, fewer than 2 terms, a correction that is
            not positive, a stride that does not divide ``image_size``, a kernel that wraps around
            it more than once; in ``forward``, an image of another size.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = SOCConv2d(4, 8, 3, image_size=8)
        >>> bool(onelip.lipschitz_bound(layer) < 1.005)
        True
        >>> onelip.lipschitz_bound(onelip.export(layer))
        tensor(1., dtype=torch.float64)

    Reference: Singla, Feizi, "Skew orthogonal convolutions", ICML 2021, and "Improved techniques
    for deterministic l2 robustness", NeurIPS 2022.
    """

    export_keeps_function = False  # export takes more terms of the series
    rows_direction: Tensor
    square_direction: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        *,
        padding_mode: str = "circular",
        image_size: int | tuple[int, int] | None = None,
        terms: int = 6,
        export_terms: int = 13,
        correction: float | None = None,
        exact_gradient: bool = False,
        groups: int = 1,
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        kernel_size, stride = square(kernel_size, "kernel_size"), square(stride, "stride")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size if kernel_size < 1 else kernel_size | 1,
            stride=stride,
            padding_mode=padding_mode,
            image_size=image_size,
            terms=terms,
            groups=groups,
        )
        self.correction = (1.0 if kernel_size == 1 else 0.7) if correction is None else correction
        if not self.correction > 0 or export_terms < 2:
            raise ValueError(
                f"correction must be positive and export_terms at least 2, got {correction} and "
                f"{export_terms}"
            )
        self.export_terms, self.exact_gradient = export_terms, exact_gradient
        width = self.channels
        kernel = torch.empty(width, width // groups, kernel_size, kernel_size, **factory)
        self.raw_weight = nn.Parameter(kernel)
        self.bias = nn.Parameter(torch.zeros(out_channels, **factory)) if bias else None
        self.register_buffer("rows_direction", torch.empty(width, **factory))
        self.register_buffer("square_direction", torch.empty(width * self.kernel_size, **factory))
        self.forget()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw normal numbers, of variance ``groups / channels``, and warm up the power steps."""
        nn.init.normal_(self.raw_weight, std=(self.channels // self.groups) ** -0.5)
        nn.init.normal_(self.rows_direction)
        nn.init.normal_(self.square_direction)
        self.power_steps([self], _WARM_UP)

    @override
    def kernel(self) -> Tensor:
        return self.weight

    # ``forward`` is overridden, but it is still the series of the kernel in use
    lipschitz_bound = SkewExponential.lipschitz_bound
    to_chain = SkewExponential.to_chain

    @override
    def forward(self, x: Tensor) -> Tensor:
        if self.training and self._held is None:
            self.advance([self])
        return super().forward(x)

    @override
    def compute_weight(self) -> Tensor:
        return self.compute_weights([self])[0]

    @override
    @classmethod
    def compute_weights(cls, layers: Sequence[Self]) -> list[Tensor]:
        kernels = _skew_kernels(layers)
        norms = [
            torch.linalg.vector_norm(_stacked(directions, matrices)[:, None] @ matrices, dim=(1, 2))
            for matrices, directions in _matrices(kernels, layers)
        ]
        # k times either norm is above that of the map; the smaller one gives the longer kernel
        scales = layers[0].correction / (torch.minimum(*norms) + _EPSILON)
        scaled = scales[:, None, None, None, None] * kernels
        return list(scaled.unflatten(0, (len(layers), -1)).flatten(1, 2).unbind())

    @classmethod
    @torch.no_grad()
    def power_steps(cls, layers: Sequence[Self], iterations: int = 1) -> None:
        """Move the directions of layers of equal keys closer to the leading singular vectors.

        One stays as it is if it is mapped to 0 or overflows: it could not recover from there.
        """
        with full_precision(layers[0].raw_weight):
            for matrices, directions in _matrices(_skew_kernels(layers), layers):
                before = _stacked(directions, matrices)
                moved = before[:, :, None]
                for _ in range(iterations):
                    moved = F.normalize(matrices @ (matrices.mT @ moved), dim=1)
                pairs = zip(moved.squeeze(2), before, strict=True)
                kept = torch.stack([torch.where(usable(new), new, old) for new, old in pairs])
                for new, old in zip(kept.view(len(layers), -1), directions, strict=True):
                    old.copy_(new)

    @classmethod
    @torch.no_grad()
    def advance(cls, layers: Sequence[Self]) -> None:
        """Take one power step in those layers of equal keys whose kernel has changed.

        A kernel is read as two matrices, each with a direction of its own.
        """
        before = [
            (layer.rows_direction.clone(), layer.square_direction.clone()) for layer in layers
        ]
        cls.power_steps(layers)
        for layer, (rows, squares) in zip(layers, before, strict=True):
            new = layer.changed()
            layer.rows_direction.copy_(torch.where(new, layer.rows_direction, rows))
            layer.square_direction.copy_(torch.where(new, layer.square_direction, squares))

    @override
    def stepped_weight(self) -> Tensor:
        return self.raw_weight

    @override
    def batch_key(self) -> object:
        some = self.raw_weight
        return SOCConv2d, some.shape, some.dtype, some.device, self.correction, self.training

    @override
    @classmethod
    def begin(cls, layers: Sequence[Self]) -> None:
        """Compute the kernels once; in training mode, after one power step."""
        if layers[0].training:
            cls.advance(layers)
        super().begin(layers)

    def export(self) -> FixedSOCConv2d:
        """Return the layer with the kernel in use, fixed, and ``export_terms`` of the series."""
        return FixedSOCConv2d(
            self.kernel(),
            self.bias,
            self.in_channels,
            self.out_channels,
            stride=self.stride,
            padding_mode=self.padding_mode,
            image_size=self.image_size,
            terms=self.export_terms,
            groups=self.groups,
        )


def _skew_kernels(layers: Sequence[SOCConv2d]) -> Tensor:
    """Skew kernels of all groups of the layers, stacked: ``(layers groups, c, c, k, k)``, k odd."""
    free = torch.stack([layer.raw_weight for layer in layers])
    free = free.unflatten(1, (layers[0].groups, -1)).flatten(0, 1)
    missing = layers[0].kernel_size - free.shape[-1]
    return skew(F.pad(free, (0, missing, 0, missing)) if missing else free)


def _stacked(directions: list[Tensor], matrices: Tensor) -> Tensor:
    """The directions of all groups, one for each matrix."""
    return torch.stack(directions).view(len(matrices), -1)


def _matrices(
    kernels: Tensor, layers: Sequence[SOCConv2d]
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield the kernels as matrices, in two ways, and the directions of each, on the row side."""
    yield kernels.flatten(2), [layer.rows_direction for layer in layers]
    squares = kernels.transpose(2, 3).flatten(3).flatten(1, 2)
    yield squares, [layer.square_direction for layer in layers]
