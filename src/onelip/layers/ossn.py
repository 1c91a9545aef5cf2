r"""One-sided spectral normalisation (Gouk, Frank, Pfahringer, Cree, 2018).

A free kernel is divided by :math:`\max(1, \sigma)`, with :math:`\sigma` the norm of the convolution
on images of one size. In training :math:`\sigma` comes from warm-started power iterations, an
estimate from below: the norm of the layer may exceed 1, and its bound says by how much. The paper
of BCOP (Li et al., 2019, section 4.1) compares with it, at ten iterations per forward pass.
"""

import abc
import math
from collections.abc import Sequence
from typing import Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from typing_extensions import override

from onelip.chains.linear_map import unwrapped
from onelip.estimates._power_iteration import Operator, leading_direction, usable
from onelip.layers.constrained import ConstrainedConv2d, PowerSteps, full_precision
from onelip.layers.fixed_conv import check_whole_strides
from onelip.layers.options import FactoryOptions, Padding, Size
from onelip.layers.svcm import ProjectedLayer
from onelip.lipschitz.torch_modules import sides_of
from onelip.norms.convolutions import pair

_WARM_UP = 20  # power iterations at construction


class SpectralConv2d(PowerSteps, ConstrainedConv2d):
    """A convolution whose free kernel is divided by ``max(1, estimate of its norm)``."""

    direction: Tensor

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
        image_size: int | tuple[int, int],
        iterations: int = 10,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            image_size=image_size,
            **factory,
        )
        if iterations < 1:
            raise ValueError(f"iterations must be positive, got {iterations}")
        self.iterations = iterations
        inputs, _ = self.group_channels
        shape = (out_channels, inputs, *self.kernel_size)
        self.raw_weight = nn.Parameter(torch.empty(shape, **factory))
        self.register_buffer("direction", torch.empty(1, in_channels, *pair(image_size), **factory))
        self.forget()
        check_whole_strides(self.direction, self.stride, self.padding_mode)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel as ``nn.Conv2d`` does, and warm up the power iteration."""
        nn.init.kaiming_uniform_(self.raw_weight, a=math.sqrt(5))
        nn.init.normal_(self.direction)
        self.power_step(_WARM_UP)

    @abc.abstractmethod
    def free_kernel(self) -> Tensor:
        """Return the kernel before it is divided."""

    @torch.no_grad()
    def power_step(self, iterations: int = 1) -> None:
        """Move ``direction`` closer to the leading singular vector of the free kernel.

        It stays as it is if the kernel maps it to 0 or overflows: it cannot recover then.
        """
        with full_precision(self.raw_weight):
            operator, adjoint = self._maps()
            moved = leading_direction(operator, adjoint, self.direction, iterations=iterations)
            self.direction.copy_(torch.where(usable(moved), moved, self.direction))

    @torch.no_grad()
    def advance(self) -> None:
        """Take the power iterations of a training step, if the kernel has changed."""
        before = self.direction.clone()
        # always computed, and undone by a mask: a branch would wait for the device
        self.power_step(self.iterations)
        self.direction.copy_(torch.where(self.changed(), self.direction, before))

    def stepped_weight(self) -> Tensor:
        """Return the free kernel, without the identity that may be added."""
        return self.raw_weight

    def _maps(self) -> tuple[Operator, Operator]:
        """Return the convolution with the free kernel, and its adjoint."""
        kernel = self.free_kernel().detach()

        def operator(image: Tensor) -> Tensor:
            return self.convolve(image, kernel)

        sides = sides_of(kernel, self.padding, pair(self.dilation))
        height, width = self.direction.shape[2:]
        (top, bottom), (left, right) = sides
        shape = height + top + bottom, width + left + right

        def adjoint(y: Tensor) -> Tensor:
            size = (len(y), self.in_channels, *shape)
            image: Tensor = conv2d_input(
                size, kernel, y, self.stride, 0, self.dilation, self.groups
            )
            if self.padding_mode == "circular":
                # adjoint of circular padding: wrapped pixels are added to their originals
                return unwrapped(image, sides)
            return image[..., top : top + height, left : left + width]

        return operator, adjoint

    # ``forward`` is overridden, but it is still the convolution with the kernel in use
    lipschitz_bound = ConstrainedConv2d.lipschitz_bound
    export = ConstrainedConv2d.export
    to_chain = ConstrainedConv2d.to_chain

    @override
    def forward(self, x: Tensor) -> Tensor:
        """Convolve; in training mode, after the power iterations."""
        if self.training and self._held is None:
            self.advance()
        return super().forward(x)

    @override
    @classmethod
    def begin(cls, layers: Sequence[Self]) -> None:
        for layer in layers:
            if layer.training:
                layer.advance()
        super().begin(layers)

    @override
    def compute_weight(self) -> Tensor:
        kernel = self.free_kernel()
        image = self.convolve(self.direction.clone(), kernel)  # it may move before backward
        estimate: Tensor = torch.linalg.vector_norm(image)
        return kernel / estimate.clamp_min(1)


class OSSNConv2d(SpectralConv2d):
    r"""Convolution whose kernel is divided by an estimate of its norm, where that exceeds 1.

    Once the estimate exceeds 1, the layer depends on the direction of its free kernel alone: the
    gradient does not see its length and never shrinks it, so the kernel only grows, and learns more
    slowly as it does. ``ProjectedOSSNConv2d`` is the variant that puts it back.

    Bound: the proved norm of the kernel in use on ``image_size``. It may exceed 1, the more the
    less converged the power iteration is.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution; in training, ``2 iterations + 1`` more on a single image.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: sides of the kernel.
        stride: step of the window.
        padding: as ``nn.Conv2d``, see ``options.py``, like all further ones.
        dilation: distance of the taps.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``.
        image_size: height and width of the images for which the norm is estimated and proved.
        iterations: power iterations in training, each time that the weight has changed.
        **factory: ``device`` and ``dtype`` of parameters and buffers.

    Raises:
        ValueError: groups that do not divide the channels, a stride that does not divide the image
            under circular padding; in ``forward``, an image of another size.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = OSSNConv2d(4, 8, 3, image_size=8)
        >>> layer.power_step(200)
        >>> bool(onelip.lipschitz_bound(layer) < 1.01)
        True

    Reference: Gouk et al., "Regularisation of neural networks by enforcing Lipschitz continuity",
    2018.
    """

    @override
    def free_kernel(self) -> Tensor:
        return self.raw_weight


class ProjectedOSSNConv2d(ProjectedLayer, SpectralConv2d):
    r"""Convolution with a free kernel that ``project`` divides by ``max(1, estimate of its norm)``.

    This is the algorithm as Gouk et al. give it: the division follows each update
    (``onelip.layers.project``), and is not differentiated.

    Bound: the proved norm of the kernel in use on ``image_size``: right after ``project`` above 1
    by what the estimate misses, otherwise whatever the kernel has become.
    Shape: ``(batch, in_channels, h, w)`` to ``(batch, out_channels, h / stride, w / stride)``.
    Cost: a convolution; ``project`` takes ``2 iterations + 1`` on a single image.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: sides of the kernel.
        stride: step of the window.
        padding: as ``nn.Conv2d``, see ``options.py``, like all further ones.
        dilation: distance of the taps.
        groups: blocks of channels.
        bias: whether to add one number per channel.
        padding_mode: ``"circular"`` or ``"zeros"``.
        image_size: height and width of the images for which the norm is estimated and proved.
        iterations: power iterations per projection.
        **factory: ``device`` and ``dtype`` of parameters and buffers.

    Raises:
        ValueError: the same as ``OSSNConv2d``.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = ProjectedOSSNConv2d(4, 8, 3, image_size=8, iterations=200)
        >>> layer.project()
        >>> bool(onelip.lipschitz_bound(layer) < 1.01)
        True

    Reference: Gouk et al., "Regularisation of neural networks by enforcing Lipschitz continuity",
    2018, algorithm 1.
    """

    # ``compute_weight`` is overridden: bound, export and reading hold for any kernel in use
    lipschitz_bound = ConstrainedConv2d.lipschitz_bound
    export = ConstrainedConv2d.export
    to_chain = ConstrainedConv2d.to_chain

    @override
    def free_kernel(self) -> Tensor:
        return self.raw_weight

    @override
    def compute_weight(self) -> Tensor:
        return self.raw_weight.view_as(self.raw_weight)

    @override
    def advance(self) -> None:
        """Do nothing: the direction moves in ``project`` only."""

    @override
    @torch.no_grad()
    def project(self) -> None:
        """Divide the kernel by ``max(1, estimate of its norm)``, after the power iterations."""
        self.power_step(self.iterations)
        norm = torch.linalg.vector_norm(self.convolve(self.direction, self.raw_weight))
        self.raw_weight.div_(norm.clamp_min(1))
