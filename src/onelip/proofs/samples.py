"""Predictions and radii of samples, as claims for a checker."""

import math

import torch
from torch import Tensor

from onelip.chains import Chain
from onelip.proofs.claims import hexadecimal
from onelip.proofs.curvature import curvature_radii
from onelip.proofs.graph import body_constant
from onelip.proofs.maps import Record, norm_of_records
from onelip.proofs.tensors import TensorStore

SLACK = 2.0**-20
"""Of the largest logit: what the checker, whose values have some 37 bits, may not see of it."""

_BATCH = 256


@torch.no_grad()
def samples_record(
    chain: Chain, network: Record, bound: float, x: Tensor, store: TensorStore
) -> Record:
    """Predictions in float64, and radii a little below what the claimed constants give.

    Args:
        chain: the network.
        network: its record.
        bound: the claimed constant of the network.
        x: samples.
        store: gets the samples.
    """
    exact = chain.exact()
    logits = torch.cat([exact.forward(part.double()) for part in x.cpu().split(_BATCH)]).flatten(1)
    prediction = logits.argmax(1)
    margins = logits.gather(1, prediction[:, None]) - logits
    lost = SLACK * float(logits.abs().max().clamp_min(1.0))
    heads = {"network": torch.full((logits.shape[1],) * 2, math.sqrt(2) * bound).double()}
    if network["last"] and network["last"][-1]["map"] == "dense":
        heads["pairs"] = _pairs(network, store)
    radii = {head: _radii(margins - lost, prediction, pairs) for head, pairs in heads.items()}
    best = max(radii, key=lambda name: float(radii[name].sum()))
    found: Tensor = radii[best]
    head: str | Record = best
    curved = curvature_radii(exact, network, x.cpu().double(), store, SLACK)
    if curved is not None and curved.radii.sum() > found.sum():
        found, head = curved
    return {
        "inputs": store.add("samples", x),
        "predictions": prediction.tolist(),
        "radii": [hexadecimal(radius) for radius in found],
        "head": head,
    }


def _radii(margins: Tensor, prediction: Tensor, between: Tensor) -> Tensor:
    """Least margin over its constant, rounded down; 0 where there is no other output."""
    if between.shape[1] == 1:
        return margins.new_zeros(len(margins))
    radii = margins.clamp_min(0) / (between[prediction] * (1 + 2.0**-30))
    return radii.scatter(1, prediction[:, None], math.inf).amin(1)


def _pairs(network: Record, store: TensorStore) -> Tensor:
    """Constants of the differences of two logits, by the rows of the matrix at the end."""
    last = network["last"]
    rows = store.tensors[last[-1]["weight"]].double()
    apart = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return apart * body_constant(network) * norm_of_records(last[:-1])
