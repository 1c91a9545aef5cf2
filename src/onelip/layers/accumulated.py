"""Linear parts that are computed in float64 and stored in the dtype of their input."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from onelip.chains.value import Value
from onelip.forward_error import Arithmetic, Local, Run
from onelip.layers.fixed_conv import FixedConv2d
from onelip.layers.gradient_step import GradientStep
from onelip.layers.sandwich import Sandwich
from onelip.layers.skew_exponential import FixedSOCConv2d
from onelip.lipschitz import LipschitzModule, bound_of_part, read_module, rounding_of

WITH_SUMS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose2d,
    FixedConv2d,
    FixedSOCConv2d,
    GradientStep,
    Sandwich,
)
"""Modules with long sums, whose order decides how they are rounded."""


class Accumulated(LipschitzModule):
    """A linear part in float64, whose result is rounded to the dtype of its input.

    The sums of a network in float32 are then as good as exact, in whatever order they are computed,
    and only the numbers that are stored between layers are rounded. The weights stay in their
    dtype; the casts are part of the graph, in a ``.pt2`` and an ``.onnx`` file, too.

    Bound: that of the part.
    Shape: that of the part.
    Cost: that of the part in float64.

    Args:
        part: one of ``WITH_SUMS``, exported: its weights are numbers.

    Raises:
        TypeError: another module.

    Example:
        >>> layer = Accumulated(nn.Linear(3, 2))
        >>> layer(torch.ones(1, 3)).dtype, layer.part.weight.dtype
        (torch.float32, torch.float32)
    """

    same_in_float64 = True

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        if type(part) not in WITH_SUMS:
            raise TypeError(f"{type(part).__name__} has no long sums that float64 would help")
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """Cast the input and the weights to float64, run the part, and cast its result back."""
        named = (*self.part.named_parameters(), *self.part.named_buffers())
        numbers = {name: number.double() for name, number in named}
        y: Tensor = functional_call(self.part, numbers, (x.double(),))
        return y.to(x.dtype)

    def lipschitz_bound(self) -> Tensor:
        """Bound of the part."""
        return bound_of_part(self.part)

    def export(self) -> nn.Module:
        """Return a copy: the part is exported already."""
        return copy.deepcopy(self)

    def to_chain(self, value: Value) -> Value:
        """Read the part."""
        return read_module(self.part, value)

    def forward_error(self, run: Run) -> Local:
        """Rounding of the part in float64, and of its result once.

        Where it is stored or loaded, a subnormal number may be flushed to 0.
        """
        part = copy.deepcopy(self.part).double()  # whose rules ask for the dtype it runs in
        inside = rounding_of(part)(replace(run, arithmetic=Arithmetic.of(torch.float64)))
        result = run.lipschitz * run.x.reach + inside.offset + inside.error
        return Local(inside.offset, inside.error + run.rounding(1, result))
