"""The product of the norms of all layers: the simplest proved bound of a network."""

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from onelip.bounds.layer_product import LayerProduct
from onelip.bounds.logit_bounds import (
    LogitBounds,
    least_in_time,
    lengths,
    pair_lengths,
    raised,
    tightened,
)
from onelip.bounds.method import BoundMethod, Network, chain_of, end_of
from onelip.bounds.products.norms import DEFAULT_WORK as MOST_WORK
from onelip.bounds.products.norms import Norms, cheapest_first
from onelip.bounds.products.scaled_maps import finite_above, fraction
from onelip.chains import Block, Chain, LinearMap, Shape
from onelip.estimates import ProductEstimate
from onelip.lipschitz import lipschitz_bound
from onelip.norms.rounding import asked_once, exact, frobenius, upward

DEFAULT_WORK = 1e11
"""Multiplications for norms that are not read off a kernel: some seconds of one core."""


@dataclass(frozen=True)
class Product(BoundMethod):
    r"""Product of norms.

    Bound: :math:`\|W_L\| \prod_k (\|H_k\| + \beta_k \|G_k\| \|W_k\|)`, with the Lipschitz constants
    :math:`\beta_k` of the activations; a block's own constant where that is smaller. For a pair of
    logits, the difference of the rows of the last map replaces its norm.
    Cost: one norm for each linear map.

    Args:
        any_size: for a module, take the product of the bounds of its layers, which holds for
            images of any size (``onelip.lipschitz_bound(model)``). Otherwise, and for chains and
            programs, the product over the blocks of the chain, for images of its size.
        work: multiplications for norms of maps that have no cheaper one (``norm_of``).
        seconds: after which those maps take the cheaper norm all the same.

    Example:
        >>> from onelip.chains import Dense, Elementwise
        >>> hidden = Block(Dense(3 * torch.eye(2)), Elementwise.of(nn.ReLU()))
        >>> Product().bound(Chain((hidden,), Dense(torch.eye(2))))
        tensor(3.0000, dtype=torch.float64)
    """

    any_size: bool = True
    work: float = DEFAULT_WORK
    seconds: float | None = None
    name: ClassVar[str] = "product"
    title: ClassVar[str] = "product of norms"

    @torch.no_grad()
    @asked_once()
    def bound(self, network: Network, input_shape: Shape | None = None) -> Tensor:
        """Proved Lipschitz constant of a network; with ``any_size``, a module needs no shape."""
        if self.any_size and isinstance(network, nn.Module):
            return lipschitz_bound(network)
        return super().bound(network, input_shape)

    def prove(self, chain: Chain) -> Tensor:
        """Multiply the constants of the blocks of a chain, and the norm of its last map."""
        chain = chain.exact()

        def proved(norms: Norms, allowed: float) -> Fraction:
            norms.afford(single_maps(chain), allowed)
            return body(chain, norms) * norms.of([chain.last])

        return finite_above(cheapest_first(proved, self.work, end_of(self.seconds)))

    @torch.no_grad()
    @asked_once()
    def logit_bounds(self, network: Network, input_shape: Shape | None = None) -> LogitBounds:
        """Proved constants of the logits: rows of the last map, times the product before it."""
        if self.any_size and isinstance(network, nn.Module):
            return _of_layers(network, input_shape)
        chain = chain_of(network, input_shape).exact()

        def proved(norms: Norms, allowed: float) -> LogitBounds:
            norms.afford(single_maps(chain), allowed)
            return _of_blocks(chain, norms)

        return least_in_time(proved, self.work, end_of(self.seconds))

    def within(self, seconds: float) -> Self:
        """Spend a quarter of the time, with more work, on the blocks of the chain."""
        return replace(self, any_size=False, work=MOST_WORK, seconds=seconds / 4)

    def estimate(self, chain: Chain) -> nn.Module:
        """Differentiable product of norms on power iterations, for plain layers."""
        return ProductEstimate(chain)


def _of_blocks(chain: Chain, norms: Norms) -> LogitBounds:
    """Constants of the logits of a chain, from its blocks."""
    front = body(chain, norms)
    network = finite_above(front * norms.of([chain.last]))
    factor, rows, errors = norms.rows([chain.last])
    return tightened(
        network,
        raised(lengths(rows, errors), factor * front),
        raised(pair_lengths(rows, errors), factor * front),
        [of_block(block, norms) for block in chain.blocks],
    )


def _of_layers(model: nn.Module, input_shape: Shape | None) -> LogitBounds:
    """Constants of the logits of a module, from the bounds that its layers prove."""
    found = LayerProduct.of(model)
    if found.head is None:
        classes = chain_of(model, input_shape).last.rows
        rows = found.network.expand(classes)
    else:
        rows = upward(found.body * frobenius(exact(found.head.weight).cpu()[:, None]), 1)
    bounds = tightened(found.network, rows, found.pairwise(len(rows)), ())
    return bounds._replace(layers=tuple(bound for _, bound in found.layers))


def body(chain: Chain, norms: Norms) -> Fraction:
    """Return a Lipschitz constant of everything before the last map."""
    constant = Fraction(1)
    for block in chain.blocks:
        constant *= of_block(block, norms)
    return constant


def of_block(block: Block, norms: Norms) -> Fraction:
    """Return a Lipschitz constant of a block by itself."""
    constant = fraction(block.nonlinearity.constant) * norms.of([block.inner])
    constant *= Fraction(1) if block.outer is None else norms.of([block.outer])
    constant += Fraction(0) if block.skip is None else norms.of([block.skip])
    return constant if block.constant is None else min(constant, fraction(block.constant))


def single_maps(chain: Chain) -> list[list[LinearMap]]:
    """Return the maps whose norms are multiplied, each as a path of its own."""
    maps = [chain.last]
    for block in chain.blocks:
        maps += [m for m in (block.inner, block.outer, block.skip) if m is not None]
    return [[linear] for linear in maps]
