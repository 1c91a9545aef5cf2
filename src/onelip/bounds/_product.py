"""The product of the norms of all layers, the plainest proved bound of a network."""

import math
from fractions import Fraction

import torch
from torch import Tensor

from onelip.bounds.logit_constants import Constants, constants, lengths, pair_lengths, raised
from onelip.bounds.products.norms import Norms, cheapest_first
from onelip.bounds.products.scaled_maps import finite_above, fraction
from onelip.chains import Block, Chain, LinearMap
from onelip.norms.rounding import asked_once

DEFAULT_WORK = 1e11
"""Multiplications for norms that are not read off a kernel: some seconds of one core."""


@torch.no_grad()
@asked_once()
def naive(chain: Chain, *, work: float = DEFAULT_WORK, seconds: float = math.inf) -> Tensor:
    r"""Proved Lipschitz constant of a network, as the product over its blocks.

    Bound: :math:`\|W_L\| \prod_k (\|H_k\| + \beta_k \|G_k\| \|W_k\|)`, with the Lipschitz constants
    :math:`\beta_k` of the activations; a block's own constant where that is smaller.
    Cost: one norm for each linear map.

    Args:
        chain: the network.
        work: multiplications for norms of maps that have no cheaper one (``norm_of``).
        seconds: after which those maps take the cheaper norm all the same.

    Returns:
        A 0-d float64 tensor on the CPU.

    Raises:
        NonFiniteError: a weight is infinite or NaN, or the bound too large for a float.

    Example:
        >>> from torch import nn
        >>> from onelip.chains import Dense, Elementwise
        >>> hidden = Block(Dense(3 * torch.eye(2)), Elementwise.of(nn.ReLU()))
        >>> naive(Chain((hidden,), Dense(torch.eye(2))))
        tensor(3.0000, dtype=torch.float64)
    """
    chain = chain.exact()

    def proved(norms: Norms, allowed: float) -> Fraction:
        norms.afford(single_maps(chain), allowed)
        return body(chain, norms) * norms.of([chain.last])

    return finite_above(cheapest_first(proved, work, seconds))


@torch.no_grad()
@asked_once()
def naive_constants(chain: Chain, *, work: float = DEFAULT_WORK) -> Constants:
    """The product's bounds of the network, of each logit and of each difference of two.

    The rows of the last map, or their differences, times the product of what is in front of it.

    Args:
        chain: the network.
        work: as for ``naive``.
    """
    chain, norms = _prepared(chain, work)
    front = body(chain, norms)
    network = finite_above(front * norms.of([chain.last]))
    factor, rows, errors = norms.rows([chain.last])
    return constants(
        network,
        raised(lengths(rows, errors), factor * front),
        raised(pair_lengths(rows, errors), factor * front),
        [of_block(block, norms) for block in chain.blocks],
    )


def naive_per_class(chain: Chain, *, work: float = DEFAULT_WORK) -> Tensor:
    """Proved Lipschitz constant of each logit: ``(classes,)``, float64.

    Args:
        chain: the network.
        work: as for ``naive``.
    """
    return naive_constants(chain, work=work).per_class


def naive_pairwise(chain: Chain, *, work: float = DEFAULT_WORK) -> Tensor:
    """Proved Lipschitz constants of all differences of two logits: ``(classes, classes)``, float64.

    Args:
        chain: the network.
        work: as for ``naive``.
    """
    return naive_constants(chain, work=work).pairwise


def body(chain: Chain, norms: Norms) -> Fraction:
    """A Lipschitz constant of everything in front of the last map."""
    constant = Fraction(1)
    for block in chain.blocks:
        constant *= of_block(block, norms)
    return constant


def of_block(block: Block, norms: Norms) -> Fraction:
    """A Lipschitz constant of a block by itself."""
    constant = fraction(block.nonlinearity.constant) * norms.of([block.inner])
    constant *= Fraction(1) if block.outer is None else norms.of([block.outer])
    constant += Fraction(0) if block.skip is None else norms.of([block.skip])
    return constant if block.constant is None else min(constant, fraction(block.constant))


def single_maps(chain: Chain) -> list[list[LinearMap]]:
    """The maps whose norms are multiplied."""
    maps = [chain.last]
    for block in chain.blocks:
        maps += [m for m in (block.inner, block.outer, block.skip) if m is not None]
    return [[linear] for linear in maps]


def _prepared(chain: Chain, work: float) -> tuple[Chain, Norms]:
    chain, norms = chain.exact(), Norms()
    norms.afford(single_maps(chain), work)
    return chain, norms
