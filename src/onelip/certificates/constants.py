"""Where a certificate takes the Lipschitz constants of logit differences from: proofs only."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip import bounds
from onelip.chains import Shape
from onelip.layers.last_layer import LastLayer
from onelip.lipschitz import finite, lipschitz_bound
from onelip.norms.rounding import exact, frobenius, product, upward
from onelip.reading import read

Head = nn.Linear | LastLayer


@dataclass(frozen=True)
class Constants:
    """Proved constants of a network.

    Attributes:
        method: ``"product"`` or ``"liplt"``.
        pairwise: function of the number of classes, ``(classes, classes)`` float64: an upper bound
            of the Lipschitz constant of each difference of two logits.
        bound: of the whole network, 0-d float64.
        body_bound: of the part in front of a linear head, or ``bound``.
        layer_bounds: of the layers, by name.
        head: how the pairs were bounded; see ``Certificate``.
        proof: what LipLT proved of single logits and their pairs.
    """

    method: str
    pairwise: Callable[[int], Tensor]
    bound: Tensor
    body_bound: Tensor
    layer_bounds: tuple[tuple[str, float], ...]
    head: str
    proof: bounds.Constants | None = None


Prover = Callable[[nn.Module, Shape], Constants]
"""Proves constants of a model on inputs of a shape (without the batch)."""


def product_constants(model: nn.Module, input_shape: Shape) -> Constants:  # noqa: ARG001
    """From the product of the bounds of all layers, and the distances of a linear head's rows.

    Tight for networks of 1-Lipschitz layers.
    """
    parts = flattened(model)
    layers = [(name, lipschitz_bound(part)) for name, part in parts]
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


PROVERS: dict[str, Prover] = {"product": product_constants, "liplt": liplt_constants}
"""By the name that recipes use."""


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
    if isinstance(last, nn.Linear) and type_before_parametrizations(last) is nn.Linear:
        return last
    return last if type(last) is LastLayer else None
