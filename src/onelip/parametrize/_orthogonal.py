r"""Orthogonal weights: matrices by a Cholesky factor, kernels by block convolution.

A matrix V becomes the Q of its QR factorisation. Of a kernel the first numbers are such a matrix,
which with parameters of its own makes an adaptive orthogonal convolution (Boissin et al., 2025;
``layers/aoc.py``): the map itself is an isometry on its smaller side, where
``torch.nn.utils.parametrizations.orthogonal`` makes the last two axes of the kernel orthogonal.
"""

import math
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import override

from onelip.autocast import no_autocast
from onelip.errors import UsageError
from onelip.layers.block_convolution import (
    Composition,
    by_group,
    projector_bases,
    reads_all,
    windows_side_by_side,
)
from onelip.layers.orthogonal import cholesky_qr, oriented
from onelip.norms.axes import Axis, excess
from onelip.parametrize.kinds import TRANSPOSED, axes, check


def orthogonal(module: nn.Module) -> nn.Module:
    """Make the weight of a linear layer orthogonal, in training and in eval mode.

    It takes the place of ``torch.nn.utils.parametrizations.orthogonal``. A matrix has orthonormal
    rows or columns, whichever are fewer. A convolution is an isometry on its smaller side, up to
    the border; from one channel per group to one without a stride, such a map is a shift.

    Bound: the proved norm of the weight, 1 up to rounding, for every size of the input.
    Cost: each time that the weight is read, a product and a Cholesky factor of the smaller side,
    and for a kernel that of block convolution. In inference ``onelip.export`` puts the result in
    place.

    Args:
        module: ``nn.Linear``, ``nn.Conv1d`` to ``nn.Conv3d``, or ``nn.ConvTranspose1d`` to
            ``nn.ConvTranspose3d``.

    Returns:
        The module, whose kernel has new parameters, too: make the optimiser after.

    Raises:
        UsageError: another module, or one that is parametrized; a kernel that skips pixels, with
            more output channels than numbers that it reads; padding that repeats pixels, as
            circular padding with a stride may.

    Example:
        >>> import onelip
        >>> conv = orthogonal(nn.Conv2d(4, 8, 3, padding=1, groups=2)).eval()
        >>> bool(abs(onelip.lipschitz_bound(conv) - 1) < 1e-5)
        True
    """
    check(module)
    constraint = Orthogonal(module)
    parametrize.register_parametrization(module, "weight", constraint)
    return module


class Orthogonal(nn.Module):
    """The parametrization that ``orthogonal`` registers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        weight: Any = module.weight
        self.plan: Composition | None = None
        if type(module) is nn.Linear:
            return
        along = axes(module)
        _check(along)
        self.groups: int = module.groups  # type: ignore[assignment]
        inputs, outputs = weight.shape[1], len(weight) // self.groups
        taps, strides = tuple(a.taps for a in along), tuple(a.stride for a in along)
        window = windows_side_by_side(taps, strides, tuple(a.dilation for a in along))
        transposed = isinstance(module, TRANSPOSED)
        read = inputs * math.prod(window)
        if outputs > read and not reads_all(strides, window) and not transposed:
            raise UsageError(
                f"no kernel is orthogonal here: it skips pixels and reads {read} independent "
                f"numbers for {outputs} channels; onelip.parametrize.lipschitz takes any"
            )
        self.plan = Composition.adaptive(inputs, outputs, taps, window)
        if self.plan.columns > inputs * math.prod(taps):
            raise UsageError(
                "a kernel of one input channel has too few taps for this stride: take a "
                "kernel_size that is the stride, or onelip.parametrize.lipschitz"
            )
        like = {"dtype": weight.dtype, "device": weight.device}
        count = len(self.plan.turns)
        self.raw_bases = projector_bases(self.groups, count, self.plan.inner, **like)

    @override
    def forward(self, weight: Tensor) -> Tensor:
        """Orthogonalise a matrix, or make a kernel of its first numbers and the bases."""
        with no_autocast(weight.device.type):
            if self.plan is None:
                return _orthogonal(weight[None])[0]
            numbers = weight.unflatten(0, (self.groups, -1)).flatten(3).transpose(2, 3).flatten(2)
            matrix = _orthogonal(numbers[..., : self.plan.columns])
            bases = by_group(cholesky_qr(self.raw_bases), self.groups)
            return self.plan.kernel(matrix, bases).contiguous()

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Take an orthogonal matrix as it is.

        Raises:
            NotImplementedError: a kernel, which is not made of its own numbers alone.
        """
        if self.plan is not None:
            raise NotImplementedError("no kernel can be assigned to an orthogonal convolution")
        return weight


def _check(along: list[Axis]) -> None:
    if excess(along) > 1 or any(a.circular and a.stride > 1 for a in along):
        raise UsageError(
            "this padding may repeat pixels, so that no kernel keeps lengths: padding_mode='zeros'"
        )


def _orthogonal(matrices: Tensor) -> Tensor:
    """The Q factors of matrices, or of their transposes if they are wide."""
    rows, columns = matrices.shape[1:]
    return oriented(cholesky_qr(oriented(matrices, rows, columns)), rows, columns)
