"""Constants of plain dense networks from LipSDP's multipliers, as claims for a checker."""

from collections.abc import Iterator
from fractions import Fraction

import torch

from onelip.bounds import LipSDP
from onelip.bounds.method import Shared
from onelip.bounds.semidefinite.forms import SlopeMultipliers
from onelip.chains import Chain
from onelip.errors import NotApplicableError
from onelip.proofs.maps import Record
from onelip.proofs.tensors import TensorStore

_EXCESS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)  # above the level: how much room the checker needs


def with_multipliers(
    chain: Chain, network: Record, store: TensorStore, seconds: float | None
) -> Iterator[tuple[Record, float]]:
    """The record of a network with multipliers, and constants that they may show, smallest first.

    Args:
        chain: the network.
        network: its record by the product of norms.
        store: gets the multipliers.
        seconds: for the search.

    Raises:
        NotApplicableError: the network has other parts than matrices and activations with slopes
            between two inputs, or no multipliers gain anything.
    """
    shared = Shared(chain)
    LipSDP(seconds=seconds).outcome(shared)
    if shared.multipliers is None:
        raise NotApplicableError("no multipliers gain anything over the product of norms")
    after, names = Fraction(1), []
    factors = [Fraction(float(factor)) for factor in shared.matrices().factors]
    scale = float(torch.tensor([float(factor) for factor in factors]).double().prod())
    for place in reversed(range(len(chain.blocks))):
        single = shared.multipliers[place]
        if not isinstance(single, SlopeMultipliers):
            raise NotApplicableError("no proof of multipliers of sorting can be written yet")
        after *= factors[place + 1]
        weights = single.weights.double() * (float(after) ** 2 / 2)
        names.append(store.add(f"block{place}.multipliers", weights))
    method = {"kind": "multipliers", "weights": names[::-1]}
    for excess in _EXCESS:
        level = float(shared.level) ** 0.5 * scale
        yield network | {"method": method}, level * (1 + excess)
