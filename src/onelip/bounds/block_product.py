"""The product of the norms of all linear maps of a chain, block by block."""

from fractions import Fraction

from torch import Tensor

from onelip.bounds.logit_bounds import (
    LogitBounds,
    least_in_time,
    lengths,
    pair_lengths,
    raised,
    tightened,
)
from onelip.bounds.products.norms import Norms, cheapest_first
from onelip.bounds.products.scaled_maps import finite_above, fraction
from onelip.chains import Block, Chain, LinearMap

DEFAULT_WORK = 1e11
"""Multiplications for norms that are not read off a kernel: some seconds of one core."""


def product_of_blocks(chain: Chain, work: float, seconds: float) -> Tensor:
    """Proved Lipschitz constant of a chain: the product over its blocks, a 0-d float64 tensor.

    Args:
        chain: the network.
        work: multiplications for norms of maps that have no cheaper one.
        seconds: after which those maps take the cheaper norm all the same.
    """
    chain = chain.exact()

    def proved(norms: Norms, allowed: float) -> Fraction:
        norms.afford(single_maps(chain), allowed)
        return body(chain, norms) * norms.of([chain.last])

    return finite_above(cheapest_first(proved, work, seconds))


def logits_by_blocks(chain: Chain, work: float, seconds: float) -> LogitBounds:
    """Proved constants of a chain and its logits: rows of the last map, times the rest.

    Args:
        chain: the network.
        work: as for ``product_of_blocks``.
        seconds: as for ``product_of_blocks``.
    """
    chain = chain.exact()

    def proved(norms: Norms, allowed: float) -> LogitBounds:
        norms.afford(single_maps(chain), allowed)
        return _of_blocks(chain, norms)

    return least_in_time(proved, work, seconds)


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
