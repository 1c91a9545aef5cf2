"""Where a certificate takes the Lipschitz constants of logit differences from: proofs only."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip import bounds
from onelip.certificates.head_curvature.radii import HeadRadii
from onelip.chains import Shape
from onelip.layers.unit_norm_linear import UnitNormLinear
from onelip.lipschitz import bound_of_part, finite, refuse_hidden_behaviour
from onelip.norms.rounding import UNIT, downward, exact, frobenius, product, upward
from onelip.reading import read

Head = nn.Linear | UnitNormLinear


class Rounding(NamedTuple):
    """How far what was computed may be from the exact values, in Euclidean norm.

    Of the features in front of the head, and of the logits; both for every input in reach.
    """

    features: float = 0.0
    logits: float = 0.0


EXACT = Rounding()


class Found(NamedTuple):
    """Radii in units of the input, and what was found in front of an MLP head."""

    radius: Tensor
    head: HeadRadii | None = None


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Proved constants of a network, and the radii that follow from them.

    Attributes:
        method: ``"product"``, ``"liplt"`` or ``"curvature"``.
        pairwise: function of the number of classes, ``(classes, classes)`` float64: an upper bound
            of the Lipschitz constant of each difference of two logits.
        bound: of the whole network, 0-d float64.
        body_bound: of the part in front of a linear head, or ``bound``.
        layer_bounds: of the layers, by name.
        head: how the pairs were bounded; see ``Certificate``.
        proof: what LipLT proved of single logits and their pairs.
        head_parts: how many modules at the end of the flattened network the radii are proved in
            front of.
    """

    method: str
    pairwise: Callable[[int], Tensor]
    bound: Tensor
    body_bound: Tensor
    layer_bounds: tuple[tuple[str, float], ...]
    head: str
    proof: bounds.Constants | None = None
    head_parts: int = 0

    def split(self, model: nn.Module) -> tuple[nn.Module, nn.Module]:
        """The part whose outputs the radii are proved from, and the part behind it."""
        if not self.head_parts:
            return model, nn.Identity()
        parts = [part for _, part in flattened(model)]
        return nn.Sequential(*parts[: -self.head_parts]), nn.Sequential(*parts[-self.head_parts :])

    def radii(
        self,
        features: Tensor,  # noqa: ARG002
        logits: Tensor,
        prediction: Tensor,
        rounding: Rounding = EXACT,
    ) -> Found:
        """Radii of a batch: the smallest margin, divided by the constant of its pair.

        Args:
            features: outputs of the first part, ``(batch, ...)``.
            logits: ``(batch, classes)``.
            prediction: ``(batch,)``.
            rounding: of the network, at the sample and wherever an attack may lead.
        """
        scores = logits.detach().double().cpu()
        own = prediction.cpu()[:, None]
        margins = scores.gather(1, own) - scores
        margins = margins.clamp(max=torch.finfo(scores.dtype).max)  # a difference that overflowed
        lost = 2 * math.sqrt(2) * rounding.logits * (1 + 4 * UNIT)  # a difference, here and there
        margins = downward((margins - lost).clamp_min(0), 1) if lost else margins
        slope = self.pairwise(logits.shape[1])
        slope = slope.nan_to_num(nan=math.inf, posinf=math.inf)  # 0 times an infinite distance
        quotient = downward(margins / slope[own.squeeze(1)], 4)
        quotient = torch.where(margins > 0, quotient, 0.0)  # 0 / 0 in a constant network
        quotient.scatter_(1, own, math.inf)  # not its own rival
        return Found(quotient.amin(1))


Prover = Callable[[nn.Module, Shape], Constants]
"""Proves constants of a model on inputs of a shape (without the batch)."""


def product_constants(model: nn.Module, input_shape: Shape) -> Constants:  # noqa: ARG001
    """From the product of the bounds of all layers, and the distances of a linear head's rows.

    Tight for networks of 1-Lipschitz layers.
    """
    refuse_hidden_behaviour(model)
    parts = flattened(model)
    layers = [(name, bound_of_part(part)) for name, part in parts]
    head = _linear_head(parts)
    factors = [bound for _, bound in layers]
    body = product(factors[:-1] if head is not None else factors)

    def pairwise(classes: int) -> Tensor:
        if head is None:
            return upward(body * math.sqrt(2), 2).expand(classes, classes)
        return upward(body * distances(head.weight), 1)

    return Constants(
        method="product",
        pairwise=pairwise,
        bound=finite(product(factors), "the model"),
        body_bound=body,
        layer_bounds=tuple((name, float(bound)) for name, bound in layers),
        head="general" if head is None else "pairwise",
    )


def liplt_constants(model: nn.Module, input_shape: Shape) -> Constants:
    """From LipLT, directly for each pair of logits; never looser than the product.

    Tighter by far for ordinary networks; for networks of 1-Lipschitz layers it costs more and gains
    little.
    """
    chain = read(model, input_shape)
    proof = bounds.liplt_constants(chain)
    names = (block.name or str(number) for number, block in enumerate(chain.blocks))
    layers = tuple(zip(names, (float(layer) for layer in proof.layers), strict=True))
    return Constants(
        method="liplt",
        pairwise=lambda _: proof.pairwise,
        bound=finite(proof.network, "the model"),
        body_bound=proof.network,
        layer_bounds=layers,
        head="pairwise",
        proof=proof,
    )


def distances(rows: Tensor) -> Tensor:
    """Upper bounds of the distances between the rows of a matrix: ``(rows, rows)``, float64."""
    weight = exact(rows).cpu()
    return torch.stack([frobenius(upward((weight - row).abs(), 1)[:, None]) for row in weight])


def flattened(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The parts of nested Sequentials, in order, by dotted name."""
    if type(module) is not nn.Sequential:
        return [(prefix or type(module).__name__, module)]
    parts = []
    for name, part in zip(module._modules, module, strict=True):  # a module may occur twice
        parts += flattened(part, f"{prefix}.{name}" if prefix else name)
    return parts


def _linear_head(parts: list[tuple[str, nn.Module]]) -> Head | None:
    last = parts[-1][1] if parts else None
    if last is not None and is_linear(last):
        return last
    return last if type(last) is UnitNormLinear else None


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a module is torch's linear layer, and nothing derived from it."""
    return type_before_parametrizations(module) is nn.Linear
