"""Clamps in graphs: maxima and minima with constants, slopes from 0 to 1."""

from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import Elementwise
from onelip.chains.value import Value, constant


class Clamp(nn.Module):
    """``min(max(x, low), high)``, entry by entry; either end may be left out."""

    low: Tensor | None
    high: Tensor | None

    def __init__(self, low: Tensor | None, high: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    def forward(self, x: Tensor) -> Tensor:
        """Clamp."""
        ends = (None if end is None else end.to(x.dtype) for end in (self.low, self.high))
        return torch.clamp(x, *ends)


def clamped(value: Value, low: Any = None, high: Any = None) -> Value:
    """A value between constants; a clamp of a clamp is one nonlinearity."""
    ends = [None if end is None else constant(end, value)[0].detach() for end in (low, high)]
    module: nn.Module = Clamp(*ends)
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64)
    block, before = value.point.block, value.point.source
    if block is not None and before is not None and not value.maps:
        first = block.nonlinearity.module
        if isinstance(first, Clamp | nn.Sequential) and isinstance(block.nonlinearity, Elementwise):
            return before.activated(Elementwise(nn.Sequential(first, module), zero, one))
    return value.activated(Elementwise(module, zero, one))
