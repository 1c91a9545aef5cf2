"""Chains as the records of ``proof.json``: blocks and activations, each with its claim."""

import math

from onelip.chains import Block, Chain
from onelip.errors import NotApplicableError
from onelip.proofs.activations import activation_record
from onelip.proofs.claims import hexadecimal
from onelip.proofs.elementwise import identity_record
from onelip.proofs.maps import ROUNDING, Record, map_records, norm_of_records, weighted
from onelip.proofs.tensors import TensorStore
from onelip.reading.graphs.gradient_steps import Step, step_of


def network_record(chain: Chain, store: TensorStore) -> Record:
    """A network with all its claims; its tensors go to the store.

    Raises:
        NotApplicableError: a part has no record in this format; the message names it.
    """
    blocks: list[Record] = []
    for place, block in enumerate(chain.blocks):
        blocks += _block(block, store, f"block{place}")
    last = map_records(chain.last, store, "last")
    return {"blocks": blocks, "last": last, "method": None}


def body_constant(network: Record) -> float:
    """Product of the claimed constants of the blocks, rounded up."""
    constants = [float.fromhex(block["bound"]) for block in network["blocks"]]
    return math.prod(constants) * (1 + ROUNDING * len(constants))


def _block(block: Block, store: TensorStore, place: str) -> list[Record]:
    """A block; of a gradient step, the maps in front of it are a block of their own."""
    step = step_of(block)
    if step is not None and block.skip is not None:
        before = map_records(block.skip, store, f"{place}.before")
        return [*_linear_block(before, store), _step(block, step, store, place)]
    inner = map_records(block.inner, store, f"{place}.inner")
    written = activation_record(block, store, place)
    low, high = written.slopes
    inner, outer = [*inner, *written.before], [*written.after]
    outer += [] if block.outer is None else map_records(block.outer, store, f"{place}.outer")
    skip = None if block.skip is None else map_records(block.skip, store, f"{place}.skip")
    constant = max(high, -low) * norm_of_records(inner) * norm_of_records(outer)
    constant += 0.0 if skip is None else norm_of_records(skip)
    bound = hexadecimal(constant * (1 + ROUNDING))
    return [
        {
            "inner": inner,
            "activation": written.record,
            "outer": outer,
            "skip": skip,
            "bound": bound,
        }
    ]


def _step(block: Block, step: Step, store: TensorStore, place: str) -> Record:
    """``x - step W^T phi(W x)``, whose constant is 1 as long as the step is short."""
    inner = weighted(step.linear, store, f"{place}.inner")
    activation, (low, high), before, after = activation_record(block, store, place)
    if before or after:
        kind = type(block.nonlinearity.module).__name__
        raise NotApplicableError(f"no proof of a step with {kind} can be written yet ({place})")
    reach = step.length * float.fromhex(inner["norm"]) ** 2 * (1 + ROUNDING)
    constant = max(1.0, (reach * high - 1) * (1 + ROUNDING), (1 - reach * min(low, 0.0)))
    return {
        "inner": [inner],
        "activation": activation,
        "step": hexadecimal(step.length),
        "bound": hexadecimal(constant if low >= 0 else constant * (1 + ROUNDING)),
    }


def _linear_block(maps: list[Record], store: TensorStore) -> list[Record]:
    """Linear maps as a block whose activation changes nothing; none for none."""
    if not maps:
        return []
    activation = identity_record(store, "identity")
    bound = hexadecimal(norm_of_records(maps) * (1 + ROUNDING))
    return [{"inner": maps, "activation": activation, "outer": [], "skip": None, "bound": bound}]
