"""Constants of plain dense networks from LipSDP's multipliers, as claims for a checker."""

import math
from collections.abc import Iterator

from torch import Tensor

from onelip.bounds import LipSDP
from onelip.bounds.method import Shared
from onelip.bounds.semidefinite.forms import SlopeMultipliers
from onelip.bounds.semidefinite.layerwise import strictly
from onelip.chains import Chain
from onelip.errors import NotApplicableError
from onelip.proofs.maps import Record
from onelip.proofs.tensors import TensorStore

_SHARES = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""Of multipliers whose form is positive with room to spare: how much the checker needs."""


def with_multipliers(
    chain: Chain, network: Record, store: TensorStore, seconds: float | None
) -> Iterator[tuple[Record, float]]:
    """The record of a network with multipliers, and the constant that they show, smallest first.

    The form is linear in multipliers and squared constant, so that what is between the best ones,
    whose form has an eigenvalue of 0, and ones with room has room.

    Args:
        chain: the network.
        network: its record by the product of norms.
        store: gets the multipliers.
        seconds: for the search.

    Raises:
        NotApplicableError: the network has other parts than matrices and activations with slopes
            between two inputs.
    """
    shared = Shared(chain)
    LipSDP(seconds=seconds).outcome(shared)
    start, level = strictly(shared.matrices())
    best, least = shared.multipliers or start, min(shared.level, level)
    # multipliers are those of the scaled network, whose factors are powers of two
    factors = [float(factor) for factor in shared.matrices().factors]
    for share in _SHARES:
        names = []
        for place, (one, other) in enumerate(zip(best, start, strict=True)):
            weights = _between(one, other, share) * (math.prod(factors[place + 1 :]) ** 2 / 2)
            names.append(store.add(f"block{place}.multipliers{share:g}", weights))
        reached = (1 - share) * float(least) + share * float(level)
        bound = math.sqrt(reached) * math.prod(factors) * (1 + 1e-9)
        yield network | {"method": {"kind": "multipliers", "weights": names}}, bound
        for name in set(names):  # the checker did not take them
            del store.tensors[name]


def _between(best: object, start: object, share: float) -> Tensor:
    """Multipliers of slopes between two sets of them."""
    if not isinstance(best, SlopeMultipliers) or not isinstance(start, SlopeMultipliers):
        raise NotApplicableError("no proof of multipliers of sorting can be written yet")
    return (1 - share) * best.weights.double() + share * start.weights.double()
