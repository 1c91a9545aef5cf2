"""The product of the bounds that the layers of a module prove, for images of any size."""

import math
from dataclasses import dataclass
from typing import Self, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip.deadline import Deadline
from onelip.layers.accumulated import Accumulated
from onelip.layers.unit_norm_linear import UnitNormLinear
from onelip.lipschitz import bound_of_part, finite, refuse_hidden_behaviour
from onelip.norms.rounding import exact, frobenius, product, upward

Head = nn.Linear | UnitNormLinear


@dataclass(frozen=True)
class LayerProduct:
    """Proved bounds of the parts of nested Sequentials.

    Attributes:
        layers: the bound of each part, by dotted name.
        head: the last part if it is linear, else None.
    """

    layers: tuple[tuple[str, Tensor], ...]
    head: Head | None

    @classmethod
    def of(cls, model: nn.Module) -> Self:
        """Prove the bound of each part of a model.

        Raises:
            UnboundedModuleError: nothing is proved for a part.
        """
        refuse_hidden_behaviour(model)
        parts = flattened(model)
        layers = tuple((name, bound_of_part(part)) for name, part in parts)
        return cls(layers, _linear_head(parts))

    @property
    def body(self) -> Tensor:
        """Product of the bounds of everything before the head."""
        factors = [bound for _, bound in self.layers]
        return product(factors[:-1] if self.head is not None else factors)

    @property
    def network(self) -> Tensor:
        """Product of all bounds.

        Raises:
            NonFiniteError: it is infinite or NaN.
        """
        return finite(product([bound for _, bound in self.layers]), "the model")

    def pairwise(self, classes: int) -> Tensor:
        """Constants of the differences of two logits: ``(classes, classes)``, float64.

        Bound: the distances between the rows of a linear head, times the rest; without one, the
            root of 2 times the product.
        """
        if self.head is None:
            # The row e_l - e_i has norm sqrt(2).
            return upward(self.body * math.sqrt(2), 2).expand(classes, classes)
        return upward(self.body * distances(self.head.weight), 1)


def bound_by_layers(model: nn.Module, deadline: Deadline | None = None) -> Tensor:
    """Multiply the bounds of the parts of a Sequential; any other module is one part.

    Raises:
        OutOfTimeError: the time is over before the last part.
    """
    bounds = [torch.ones((), dtype=torch.float64)]
    for part in model if type(model) is nn.Sequential else [model]:
        if deadline is not None:
            deadline.allow()
        bounds.append(bound_of_part(part))
    return product(bounds)


def distances(rows: Tensor) -> Tensor:
    """Upper bounds of the distances between the rows of a matrix: ``(rows, rows)``, float64."""
    weight = exact(rows).cpu()
    return torch.stack([frobenius(upward((weight - row).abs(), 1)[:, None]) for row in weight])


def flattened(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Return the parts of nested Sequentials, in order, by dotted name."""
    if type(module) is not nn.Sequential:
        return [(prefix or type(module).__name__, module)]
    parts = []
    for name, part in zip(module._modules, module, strict=True):  # a module may occur twice
        parts += flattened(part, f"{prefix}.{name}" if prefix else name)
    return parts


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Check whether a module is exactly torch's linear layer, no subclass."""
    return type_before_parametrizations(module) is nn.Linear


def without_accumulation(module: nn.Module) -> nn.Module:
    """Return the part that ``Accumulated`` computes in float64, or a module itself."""
    return module.part if type(module) is Accumulated else module


def _linear_head(parts: list[tuple[str, nn.Module]]) -> Head | None:
    """Return the last part if it is linear."""
    last = without_accumulation(parts[-1][1]) if parts else None
    return last if last is not None and is_head(last) else None


def is_head(module: nn.Module) -> TypeGuard[Head]:
    """Check whether a module is a matrix and a bias, and nothing else."""
    return is_linear(module) or type(module) is UnitNormLinear
