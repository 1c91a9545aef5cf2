"""Where a bound of a network loses against what is seen, from one layer to the next."""

import itertools
import math
from typing import NamedTuple

from onelip.bounds._eclipse import ECLipsE
from onelip.bounds._liplt import LipLT
from onelip.bounds.block_product import body, single_maps
from onelip.bounds.products.costs import estimate
from onelip.bounds.products.norms import Norms
from onelip.bounds.products.scaled_maps import above, flat
from onelip.chains import Chain
from onelip.deadline import Deadline
from onelip.errors import NotApplicableError
from onelip.estimates import lower_estimate

_WORK = 1e10  # multiplications for norms that are not read off a kernel


class Prefix(NamedTuple):
    """Constants of a network up to the linear map of a layer.

    Attributes:
        name: of the layer, or its number.
        product: product of the norms until there.
        bound: the smaller of ECLipsE-Fast and LipLT, if it was ready in time; proved.
        lower: what is seen: an estimate from below.
        lost: how many times larger bound over lower is here than one layer before.
    """

    name: str
    product: float
    bound: float
    lower: float
    lost: float


def prefixes(chain: Chain, seconds: float) -> tuple[Prefix, ...]:
    """Bound every prefix of a chain, as many as the time allows, the shortest first.

    Args:
        chain: the network, as ``exact`` returns it.
        seconds: for all together; those of the network itself come last.
    """
    deadline, found, before = Deadline(seconds), list[Prefix](), 1.0
    names = [block.name or str(k) for k, block in enumerate(chain.blocks)]
    lasts = [*(block.inner for block in chain.blocks), chain.last]
    for k, (name, last) in enumerate(itertools.zip_longest(names, lasts, fillvalue="last")):
        share = deadline.left / (2 * (len(lasts) - k))
        if share <= 0:
            break
        assert not isinstance(last, str)
        part = Chain(chain.blocks[:k], last)
        product = _product(part)
        bound = min(product, _bound(part, share))
        # A linear map needs no search: Lanczos steps come close to its norm.
        lower = float(lower_estimate(part, seconds=share)) if k else estimate(flat([last]))
        ratio = bound / lower if lower > 0 else math.inf
        found.append(Prefix(str(name), product, bound, lower, ratio / before))
        before = ratio
    return tuple(found)


def _product(chain: Chain) -> float:
    """Product of the norms of a chain."""
    norms = Norms()
    norms.afford(single_maps(chain), _WORK)
    return float(above(body(chain, norms) * norms.of([chain.last])))


def _bound(chain: Chain, seconds: float) -> float:
    """Smaller of two bounds; infinity if neither is ready in time."""
    deadline, found = Deadline(seconds), [math.inf]
    for method in (ECLipsE(fast=True), LipLT()):
        needed = method.multiplications(chain) / deadline.rate
        if needed < deadline.left:
            try:
                found.append(float(method.within(deadline.left).prove(chain)))
            except NotApplicableError:
                continue
    return min(found)
