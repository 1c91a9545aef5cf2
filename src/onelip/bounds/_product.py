"""The product of the norms of all layers: the simplest proved bound of a network."""

from dataclasses import dataclass, replace
from typing import ClassVar, Self, TypeGuard

import torch
from torch import Tensor, nn

from onelip.bounds.block_product import DEFAULT_WORK, logits_by_blocks, product_of_blocks
from onelip.bounds.layer_product import LayerProduct
from onelip.bounds.logit_bounds import (
    LogitBounds,
    tightened,
)
from onelip.bounds.method import BoundMethod, Network, chain_of, end_of
from onelip.bounds.products.norms import DEFAULT_WORK as MOST_WORK
from onelip.chains import Chain, Shape
from onelip.estimates import ProductEstimate
from onelip.lipschitz import lipschitz_bound
from onelip.norms.rounding import asked_once, exact, frobenius, upward
from onelip.reading import Traced, readable


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
        >>> from onelip.chains import Block, Dense, Elementwise
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
        network = _traced(network, input_shape)
        if self.any_size and _has_layers(network):
            return lipschitz_bound(network)
        return super().bound(network, input_shape)

    def prove(self, chain: Chain) -> Tensor:
        """Multiply the constants of the blocks of a chain, and the norm of its last map."""
        return product_of_blocks(chain, self.work, end_of(self.seconds))

    @torch.no_grad()
    @asked_once()
    def logit_bounds(self, network: Network, input_shape: Shape | None = None) -> LogitBounds:
        """Proved constants of the logits: rows of the last map, times the product before it."""
        network = _traced(network, input_shape)
        if self.any_size and _has_layers(network):
            return _of_layers(network, input_shape)
        chain = chain_of(network, input_shape)
        return logits_by_blocks(chain, self.work, end_of(self.seconds))

    def within(self, seconds: float) -> Self:
        """Spend a quarter of the time, with more work, on the blocks of the chain."""
        return replace(self, any_size=False, work=MOST_WORK, seconds=seconds / 4)

    def estimate(self, chain: Chain) -> nn.Module:
        """Differentiable product of norms on power iterations, for plain layers."""
        return ProductEstimate(chain)


def _traced(network: Network, input_shape: Shape | None) -> Network:
    """Return a network as it is read: a module of an unknown class as its trace."""
    return readable(network, input_shape) if isinstance(network, nn.Module) else network


def _has_layers(network: Network) -> TypeGuard[nn.Module]:
    """Return whether a network has layers that prove bounds for inputs of any size."""
    return isinstance(network, nn.Module) and not isinstance(network, Traced)


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
