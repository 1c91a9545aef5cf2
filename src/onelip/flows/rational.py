r"""Implicit schemes for a skew part: the midpoint rule and implicit Euler.

The midpoint rule :math:`y = x + h A (x + y) / 2` is the Cayley transform
:math:`(I - \frac h2 A)^{-1} (I + \frac h2 A)`, an orthogonal map (Meunier et al., 2022, section
3.3). Implicit Euler, :math:`y = x + h A y`, has :math:`\|x\|^2 = \|y\|^2 + h^2 \|A y\|^2`: it
*decreases* the norm, though that section says that it increases it.
"""

import abc
import copy

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.flows.skew import SkewPart
from onelip.flows.step import checked_step
from onelip.layers.accretive_inverse import accretive_inverse
from onelip.layers.cayley import cayley
from onelip.layers.constrained import ConstrainedLayer
from onelip.lipschitz import refuse_inherited


class RationalStep(ConstrainedLayer):
    """Base of schemes that apply a rational function to each block of a skew part."""

    def __init__(self, skew: SkewPart, step: float = 1.0) -> None:
        super().__init__()
        self.skew, self.fixed_step = skew, checked_step(step)
        self.compute_weight()  # refuses parts without blocks, at construction

    @abc.abstractmethod
    def of_blocks(self, blocks: Tensor) -> Tensor:
        """Compute the rational function of the blocks of ``h A``."""

    @override
    def compute_weight(self) -> Tensor:
        return self.of_blocks(self.fixed_step * self.skew.blocks())

    @override
    @torch.no_grad()
    def fixed_weight(self) -> Tensor:
        twin = copy.deepcopy(self).eval().double()
        return twin.compute_weight().to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the map with the blocks in use."""
        return self.skew.act(x, self.weight)

    def lipschitz_bound(self) -> Tensor:
        """The proved norm of the largest block in use."""
        refuse_inherited(self.skew, "measure")
        return self.skew.measure(self.weight)

    def export(self) -> nn.Module:
        """Blocks computed in float64 and rounded once."""
        refuse_inherited(self.skew, "plain")
        return self.skew.plain(self.fixed_weight())

    def extra_repr(self) -> str:
        """Step size."""
        return f"step={self.fixed_step}"


class Midpoint(RationalStep):
    """``(I - h A / 2)^{-1} (I + h A / 2) x``: the midpoint rule on a skew part.

    Bound: the proved norm of the largest block; 1 up to rounding. The map is orthogonal.
    Shape: that of the skew part.
    Cost: one inverse of each block, in every forward pass; ``export`` leaves a plain linear layer,
    or a fixed spectrum.

    Args:
        skew: A; its parameters are this layer's.
        step: h.

    Raises:
        ValueError: a step that is not positive.
        NotApplicableError: A has no blocks to solve with, as under zero padding.

    Example:
        >>> import onelip
        >>> from onelip.flows import SkewLinear
        >>> bool(abs(onelip.lipschitz_bound(Midpoint(SkewLinear(4))) - 1) < 1e-5)
        True

    Reference: Trockman, Kolter, "Orthogonalizing convolutional layers with the Cayley transform",
    ICLR 2021.
    """

    @override
    def of_blocks(self, blocks: Tensor) -> Tensor:
        return cayley(
            -blocks / 4
        )  # cayley takes U - U^H = -h A / 2; for skew A that is U = -h A / 4


class ImplicitEulerSkew(RationalStep):
    """``(I - h A)^{-1} x``: implicit Euler on a skew part, which decreases norms.

    Bound: the proved norm of the largest block: ``1 / sqrt(1 + h^2 theta^2)``, with i theta the
    eigenvalue of A closest to 0. In odd dimensions that is 1.
    Shape: that of the skew part.
    Cost: one inverse of each block, in every forward pass.

    Args:
        skew: A; its parameters are this layer's.
        step: h.

    Raises:
        ValueError: a step that is not positive.
        NotApplicableError: A has no blocks to solve with, as under zero padding.

    Example:
        >>> import onelip
        >>> from onelip.flows import SkewLinear
        >>> bool(onelip.lipschitz_bound(ImplicitEulerSkew(SkewLinear(4))) < 1 + 1e-6)
        True
    """

    @override
    def of_blocks(self, blocks: Tensor) -> Tensor:
        eye = torch.eye(blocks.shape[-1], dtype=blocks.dtype, device=blocks.device)
        # I - h A has Hermitian part I, since A is skew
        return accretive_inverse(eye - blocks)
