"""Radii in front of an MLP head by its curvature, as claims for a checker."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.chains import Chain
from onelip.chains.linear_map import Composition, Dense, LinearMap
from onelip.proofs.maps import Record
from onelip.proofs.tensors import TensorStore

_KINDS = {
    "softplus": 1.0,
    "tanh": 0.77 / (4 / (3 * math.sqrt(3))),
    "sigmoid": 0.097 / (1 / (6 * math.sqrt(3))),
}
"""How much larger the format takes second derivatives than they are."""

_ROOM = 1 + 2.0**-16
"""By how much a claimed curvature is larger than the proved one: the checker takes 20 bits."""


class Radii(NamedTuple):
    """Radii of samples, and the head that they are claimed with."""

    radii: Tensor
    head: Record


def curvature_radii(
    chain: Chain, network: Record, x: Tensor, store: TensorStore, slack: float
) -> Radii | None:
    """Radii by the closed form of Singla and Feizi, or None for another head.

    Args:
        chain: the network in float64.
        network: its record.
        x: samples in float64.
        store: gets the curvatures.
        slack: of the largest feature or logit, that the checker may not see.
    """
    head = _head(chain, network)
    if head is None:
        return None
    body = math.prod(float.fromhex(block["bound"]) for block in network["blocks"][:-1])
    features = x
    for block in chain.blocks[:-1]:
        features = block.forward(features)
    features = features.flatten(1)
    hidden = (features @ head.inner.T + head.inner_bias).requires_grad_()
    with torch.enable_grad():
        (slopes,) = torch.autograd.grad(head.activation(hidden).sum(), hidden)
    logits = head(features)
    prediction = logits.argmax(1)
    pairs = torch.cartesian_prod(torch.arange(head.classes), torch.arange(head.classes))
    bends = Curvature(head)(pairs[:, 0], pairs[:, 1]).view(head.classes, head.classes)
    bends = bends * _ROOM * _KINDS[network["blocks"][-1]["activation"]["kind"]]
    apart = head.outer[prediction][:, None] - head.outer
    steep = ((slopes[:, None] * apart) @ head.inner).norm(dim=2) * (1 + slack)
    margins = logits.gather(1, prediction[:, None]) - logits
    margins = (margins - slack * float(logits.abs().max().clamp_min(1))).clamp_min(0)
    bend = bends[prediction]
    reach = 2 * margins / ((steep.square() + 2 * bend * margins).sqrt() + steep)
    reach = reach.scatter(1, prediction[:, None], math.inf).amin(1)
    reach -= slack * float(features.norm(dim=1).max().clamp_min(1))
    name = store.add("bends", bends)
    radii = reach.clamp_min(0) / body * (1 - 2.0**-30)
    return Radii(radii, {"kind": "curvature", "bends": name})


def _head(chain: Chain, network: Record) -> TwoLayers | None:
    """The two layers at the end, if the checker knows such a head."""
    last = network["blocks"][-1] if network["blocks"] else {}
    fits = "step" not in last and last.get("activation", {}).get("kind") in _KINDS
    if not fits or last["outer"] or last["skip"] is not None:
        return None
    block = chain.blocks[-1]
    inner, outer = _dense(block.inner), _dense(chain.last)
    if inner is None or outer is None or len(last["inner"]) != 1 or len(network["last"]) != 1:
        return None
    return TwoLayers(
        inner.weight, _bias(inner), block.nonlinearity.module, outer.weight, _bias(outer)
    )


def _dense(linear: LinearMap) -> Dense | None:
    """The matrix that a map ends with, after what only changes the shape."""
    last = linear.maps[-1] if isinstance(linear, Composition) else linear
    return last if isinstance(last, Dense) else None


def _bias(linear: Dense) -> Tensor:
    return linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
