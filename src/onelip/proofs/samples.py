"""Predictions and radii of samples, as claims for a checker."""

import math

import torch
from torch import Tensor

from onelip.chains import Chain
from onelip.proofs.claims import hexadecimal
from onelip.proofs.graph import body_constant
from onelip.proofs.maps import Record, norm_of_records
from onelip.proofs.tensors import TensorStore

SLACK = 2.0**-20
"""Of the largest logit: what the checker, whose values have some 37 bits, may not see of it."""

_BATCH = 256


@torch.no_grad()
def samples_record(chain: Chain, network: Record, x: Tensor, store: TensorStore) -> Record:
    """Predictions in float64, and radii a little below what the claimed constants give.

    Args:
        chain: the network.
        network: its record.
        x: samples.
        store: gets the samples.
    """
    exact = chain.exact()
    logits = torch.cat([exact.forward(part.double()) for part in x.cpu().split(_BATCH)]).flatten(1)
    prediction = logits.argmax(1)
    margins = logits.gather(1, prediction[:, None]) - logits
    lost = SLACK * float(logits.abs().max().clamp_min(1.0))
    pairs, between = _between(network, store, logits.shape[1])
    radii = (margins - lost).clamp_min(0) / (between[prediction] * (1 + 2.0**-30))
    radii = radii.scatter(1, prediction[:, None], math.inf).amin(1)
    return {
        "inputs": store.add("samples", x),
        "predictions": prediction.tolist(),
        "radii": [hexadecimal(radius) for radius in radii],
        "head": "pairs" if pairs else "network",
    }


def _between(network: Record, store: TensorStore, classes: int) -> tuple[bool, Tensor]:
    """Constants of the differences of two logits: by the rows of a matrix at the end, if any."""
    last, body = network["last"], body_constant(network)
    if last and last[-1]["map"] == "dense":
        rows = store.tensors[last[-1]["weight"]].double()
        apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
        return True, apart * body * norm_of_records(last[:-1])
    whole = math.sqrt(2) * body * norm_of_records(last)
    return False, torch.full((classes, classes), whole, dtype=torch.float64)
