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
from onelip.layers.aoc import strided_kernel
from onelip.layers.bcop import by_group, projector_bases
from onelip.layers.orthogonal import cholesky_qr, oriented
from onelip.norms.axes import Axis, excess
from onelip.parametrize.kinds import axes, check


def orthogonal(module: nn.Module) -> nn.Module:
    """Make the weight of a linear layer orthogonal, in training and in eval mode.

    It takes the place of ``torch.nn.utils.parametrizations.orthogonal``. A matrix has orthonormal
    rows or columns, whichever are fewer. A convolution is an isometry on its smaller side, up to
    the border, from 2 input channels per group on, or 1 with more outputs; with fewer it is
    1-Lipschitz.

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
        UsageError: another module, or one that is parametrized; a stride beyond the kernel or with
            dilation; padding that repeats pixels, as circular padding with a stride may.

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
        self.strides: tuple[int, ...] = ()
        if type(module) is nn.Linear:
            return
        along = axes(module)
        _check(along)
        self.strides = tuple(axis.stride for axis in along)
        self.groups: int = module.groups  # type: ignore[assignment]
        inputs = weight.shape[1]
        steps = [axis.taps - axis.stride for axis in along]
        self.inner = inputs if not sum(steps) else max(inputs, 2)  # a projector needs two channels
        if self.inner * math.prod(self.strides) > inputs * math.prod(a.taps for a in along):
            raise UsageError(
                "a kernel of one input channel has too few taps for this stride: take a "
                "kernel_size that is the stride, or onelip.parametrize.lipschitz"
            )
        # the two taps of each factor lie along one axis, in turn as long as there are any
        turns = [(turn, i + 1) for i, count in enumerate(steps) for turn in range(count)]
        self.turns = tuple(axis for _, axis in sorted(turns)) or (1,)
        like = {"dtype": weight.dtype, "device": weight.device}
        self.raw_bases = projector_bases(self.groups, sum(steps), self.inner, **like)

    @override
    def forward(self, weight: Tensor) -> Tensor:
        """Orthogonalise a matrix, or make a kernel of its first numbers and the bases."""
        with no_autocast(weight.device.type):
            if not self.strides:
                return _orthogonal(weight[None])[0]
            numbers = weight.unflatten(0, (self.groups, -1)).flatten(3).transpose(2, 3).flatten(2)
            matrix = _orthogonal(numbers[..., : self.inner * math.prod(self.strides)])
            bases = by_group(cholesky_qr(self.raw_bases), self.groups)
            kernel = strided_kernel(matrix, bases, self.strides, self.turns)
            return kernel[:, : weight.shape[1]].contiguous()

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Take an orthogonal matrix as it is.

        Raises:
            NotImplementedError: a kernel, which is not made of its own numbers alone.
        """
        if self.strides:
            raise NotImplementedError("no kernel can be assigned to an orthogonal convolution")
        return weight


def _check(along: list[Axis]) -> None:
    if any(a.stride > a.taps or (a.stride > 1 and a.dilation > 1) for a in along):
        raise UsageError(
            "a stride needs kernel_size >= stride and dilation=1: pixels between the windows would "
            "be lost; onelip.parametrize.lipschitz takes any"
        )
    if excess(along) > 1 or any(a.circular and a.stride > 1 for a in along):
        raise UsageError(
            "this padding may repeat pixels, so that no kernel keeps lengths: padding_mode='zeros'"
        )


def _orthogonal(matrices: Tensor) -> Tensor:
    """The Q factors of matrices, or of their transposes if they are wide."""
    rows, columns = matrices.shape[1:]
    return oriented(cholesky_qr(oriented(matrices, rows, columns)), rows, columns)
