"""Attacks on inputs of any size, such as rows of a table, by attacks on images in [0, 1]."""

import math
from typing import Self

from torch import Tensor, nn

_SLACK = 2.0**-20
_ROUNDING = 2.0**-50  # of a product and a sum in float64, with a factor of 4


class UnitBox(nn.Module):
    """A model of inputs u in [0, 1], which stands for one of ``x = low + width u``.

    One width for all numbers, so that a ball stays a ball: that of radius eps is one of radius
    ``eps / width``. The box holds the balls around all samples, so it cuts nothing off.

    Args:
        model: of rows of numbers.
        low: of each number.
        width: of the box.
    """

    low: Tensor

    def __init__(self, model: nn.Module, low: Tensor, width: float) -> None:
        super().__init__()
        self.model, self.width = model, width
        self.register_buffer("low", low)
        self.eval()

    @classmethod
    def around(cls, model: nn.Module, x: Tensor, reach: float) -> Self:
        """Return the model in a box around samples.

        Args:
            model: in float64, of rows ``x``.
            x: float64, shape (n, d).
            reach: the largest radius that is attacked.
        """
        low, high = x.min(0).values - 2 * reach, x.max(0).values + 2 * reach
        return cls(model, low, float((high - low).max()))

    def inputs(self, x: Tensor) -> Tensor:
        """Return samples as images of one pixel, shape (n, d, 1, 1)."""
        return ((x - self.low) / self.width).clamp(0, 1)[..., None, None]

    def radius(self, eps: float) -> float:
        """Return the radius in the box: of a ball inside that of radius eps, all rounding counted.

        It is smaller by a millionth.
        """
        rounded = _ROUNDING * (self.width + float(self.low.abs().max())) * math.sqrt(len(self.low))
        return max(0.0, eps * (1 - _SLACK) - rounded) / self.width

    def forward(self, u: Tensor) -> Tensor:
        """Return the logits of ``low + width u``."""
        logits: Tensor = self.model(self.low + self.width * u.flatten(1))
        return logits
