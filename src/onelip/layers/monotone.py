"""Scores that never fall when one of some features grows (Kitouni, Nolte, Williams, ICLR 2023)."""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.errors import UnboundedModuleError, UsageError
from onelip.forward_error import ABOVE, Local, Run
from onelip.layers.composite import Composite, followed
from onelip.lipschitz import bound_of_part, finite
from onelip.norms.rounding import upward


class Monotone(Composite):
    r"""``h(x) + slope * sum of the features in M``, which grows with each of them.

    With L the constant of h, all its partial derivatives are at least -L, so that those of the
    score along M are at least ``slope - L``.

    Bound: ``L + slope sqrt(|M|)``.
    Shape: ``(batch, features)`` to ``(batch, 1)``.
    Cost: that of h.

    Args:
        block: h, a module with a bound and one output.
        features: M, the places of the features, each once.
        slope: above the constant of h; a little more than 1 for 1-Lipschitz networks.

    Raises:
        UsageError: no features, negative or repeated places, a slope that is not a positive number.
        ValueError: in ``forward``, inputs without these features, or more than one output.

    Example:
        >>> import onelip
        >>> score = Monotone(onelip.layers.CholeskyLinear(3, 1), [0, 2], slope=1.5)
        >>> bool(score.least_slope() > 0.49)
        True

    Reference: Kitouni, Nolte, Williams, "Expressive Monotonic Neural Networks", ICLR 2023.
    """

    same_in_float64 = True

    def __init__(self, block: nn.Module, features: Iterable[int], *, slope: float) -> None:
        super().__init__()
        self.block, self.features = block, tuple(features)
        repeated = len(set(self.features)) < len(self.features)
        if not self.features or repeated or min(self.features) < 0:
            raise UsageError(f"places of features, each once and not negative: {self.features}")
        if not 0 < slope < math.inf:
            raise UsageError(f"slope must be a positive number, got {slope}")
        # the same number in float32 and float64
        self.slope = float(torch.tensor(slope, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Return the score."""
        if x.ndim != 2 or x.shape[1] <= max(self.features):
            raise ValueError(
                f"expected (batch, {max(self.features) + 1} or more), got {tuple(x.shape)}"
            )
        y = self.block(x.clone())  # a block may work in place
        if y.ndim != 2 or y.shape[1] != 1:
            raise ValueError(f"a block with one output is asked, got {tuple(y.shape)}")
        chosen = torch.stack([x[:, place] for place in self.features], 1)
        result: Tensor = y + self.slope * chosen.sum(1, keepdim=True)
        return result

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        along = torch.tensor(self.slope * math.sqrt(len(self.features)), dtype=torch.float64)
        return upward(bound_of_part(self.block) + upward(along, 3), 1)

    def least_slope(self) -> Tensor:
        """Return a number above 0 that no partial derivative along M is below, 0-d float64.

        It holds for the function in exact arithmetic. Computed scores are off by up to
        ``onelip.certificates.forward_error``, e: they do not fall where features grow by at least
        ``2 e / least_slope()`` in sum.

        Raises:
            UnboundedModuleError: it is not above 0.
        """
        constant = float(finite(bound_of_part(self.block), "the block"))
        least = math.nextafter(self.slope - constant, -math.inf)
        if not least > 0:
            raise UnboundedModuleError(
                f"a slope of {self.slope:.6g} does not exceed the constant {constant:.6g} of the "
                "block: a larger slope, or a block of layers that are 1-Lipschitz"
            )
        return torch.tensor(least, dtype=torch.float64)

    @override
    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> "Monotone":
        return Monotone(convert(self.block), self.features, slope=self.slope)

    def forward_error(self, run: Run) -> Local:
        """Rounding of the block, of a sum, a product and one more sum."""
        end = followed(self.block, run.x, run)
        along = self.slope * math.sqrt(len(self.features)) * ABOVE
        run.arithmetic.check(len(self.features) * run.x.reach)
        size = (end.reach + along * run.x.reach) * ABOVE
        rounded = run.rounding(len(self.features) + 2, size)
        return Local(end.offset, (end.error + rounded) * ABOVE)
