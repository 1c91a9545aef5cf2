"""Sums of products at known vectors: their absolute terms, and how many are added."""

import copy
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from onelip.forward_error.arithmetic import Shape
from onelip.norms.rounding import UNDERFLOW, exact, frobenius, gamma, upward


def with_weight(module: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    """Copy a linear module with other numbers, on the CPU."""
    twin = copy.deepcopy(module).cpu()
    twin.weight = nn.Parameter(weight, requires_grad=False)
    twin.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return twin


def additions(module: Any, shape: Shape) -> Tensor:
    """Count the additions to each entry of the output, ``(*shape)`` float64.

    Products by a weight of 0 or by padding are 0, and adding 0 rounds nothing.
    """
    used = (exact(module.weight).cpu() != 0).double()
    products: Tensor = with_weight(module, used)(torch.ones(1, *shape, dtype=torch.float64))[0]
    return (products - int(module.bias is None)).clamp_min(0)


def lengths(vectors: Tensor) -> Tensor:
    """Upper bound of the norms of vectors ``(batch, ...)``."""
    return frobenius(vectors.flatten(1)[:, None])


class Sums(NamedTuple):
    """Bounds of the sums of a linear module, ``(batch, entries)`` float64.

    Attributes:
        terms: the sums of all absolute terms, bias included, are no larger.
        peak: no sum of some of the terms is larger: neither that of all positive ones nor that of
            all negative ones, which are half of the sum of all absolute terms, and half of the
            result more or less.
    """

    terms: Tensor
    peak: Tensor

    @classmethod
    def of(cls, module: Any, point: Tensor) -> Self:
        """Bound the sums at some vectors ``(batch, *shape)`` float64."""
        weight, bias = exact(module.weight).cpu(), module.bias
        bias = None if bias is None else exact(bias).cpu()
        count = weight.numel() + 1  # more than one sum has
        absolute = with_weight(module, weight.abs(), None if bias is None else bias.abs())
        terms = upward(absolute(point.abs()), count) + count * UNDERFLOW
        result = with_weight(module, weight, bias)(point).abs() + gamma(count) * terms
        peak = torch.minimum(terms, upward((terms + result) / 2, 4))
        return cls(terms.flatten(1), peak.flatten(1))
