"""Linear maps as the records of ``proof.json``, each with a claim of its norm."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onelip.chains import (
    Adjoint,
    Along,
    Composition,
    Convolution,
    Dense,
    LinearMap,
    Reshape,
    Scale,
    Taking,
    TruncatedExponential,
    composed,
)
from onelip.chains.linear_layers import taking
from onelip.chains.volume_convolution import VolumeConvolution
from onelip.chains.windows import Wrapping
from onelip.errors import NotApplicableError
from onelip.norms.exponential import truncated_exponential
from onelip.proofs.claims import claimed_norm, claimed_norm_of_convolution, hexadecimal
from onelip.proofs.tensors import TensorStore
from onelip.proofs.volumes import unfolded
from onelip.reading.graphs.truncated_exponentials import Polynomial

Record = dict[str, Any]

ROUNDING = 2.0**-48
"""Relative: more than a few operations of float64 lose."""


def map_records(linear: LinearMap, store: TensorStore, place: str) -> list[Record]:
    """A linear map as its parts, one after the other."""
    if isinstance(linear, Composition):
        maps = enumerate(_joined(linear.maps))
        parts = [map_records(part, store, f"{place}.{i}") for i, part in maps]
        return [record for part in parts for record in part]
    if isinstance(linear, Along):
        return _along(linear, store, place)
    volume = linear.of if isinstance(linear, Adjoint) else linear
    if isinstance(volume, VolumeConvolution):
        assert isinstance(linear, VolumeConvolution | Adjoint)
        return map_records(unfolded(linear), store, place)
    if isinstance(linear, Reshape):
        return [] if linear.inputs == linear.outputs else [_taken(None, linear)]
    return [_record(linear, store, place)]


def _joined(maps: Sequence[LinearMap]) -> list[LinearMap]:
    """The same maps, with those that only move numbers in one."""
    found: list[LinearMap] = []
    for linear in maps:
        moves = isinstance(linear, Taking | Reshape | Wrapping)
        if moves and found and isinstance(found[-1], Taking | Reshape | Wrapping):
            before = found.pop()
            numbers = 1.0 + torch.arange(before.columns, dtype=torch.float64)
            places = linear(before(numbers.view(1, *before.inputs))).flatten().long() - 1
            if torch.equal(places, torch.arange(before.columns)):
                found.append(Reshape(before.inputs, linear.outputs))
            else:
                found.append(taking(before.inputs, linear.outputs, places))
        else:
            found.append(linear)
    return found


def _record(linear: LinearMap, store: TensorStore, place: str) -> Record:
    """A map without parts."""
    if isinstance(linear, Taking):
        return _taken(store.add(f"{place}.index", linear.index), linear)
    if isinstance(linear, Wrapping):
        return _wrapping(linear, store, place)
    if isinstance(linear, Scale):
        return _scale(linear, store, place)
    if isinstance(linear, Adjoint):
        return _adjoint(linear, store, place)
    if isinstance(linear, TruncatedExponential | Polynomial):
        return _exponential(linear, store, place)
    if isinstance(linear, Dense | Convolution):
        return weighted(linear, store, place)
    raise NotApplicableError(f"no proof of a {type(linear).__name__} can be written yet ({place})")


def norm_of_records(records: list[Record]) -> float:
    """Product of the claimed norms, rounded up; 1 for no maps."""
    norms = [float.fromhex(record["norm"]) for record in records]
    return math.prod(norms) * (1 + ROUNDING * len(norms))


def _taken(index: str | None, linear: LinearMap) -> Record:
    norm = 1.0 if isinstance(linear, Reshape) else claimed_norm(linear)
    outputs = list(linear.outputs)
    return {"map": "take", "index": index, "outputs": outputs, "norm": hexadecimal(norm)}


def _along(linear: Along, store: TensorStore, place: str) -> list[Record]:
    """A matrix along an axis, as a convolution of one pixel of an image turned for it."""
    columns = torch.arange(linear.columns).view(linear.inputs).movedim(linear.axis, 0)
    image = (*columns.flatten(1).shape, 1)
    turned = taking(linear.inputs, image, columns.flatten())
    conv = Convolution(image, linear.weight[:, :, None, None])
    rows = torch.arange(linear.rows).view(len(linear.weight), *columns.shape[1:])
    back = taking(conv.outputs, linear.outputs, rows.movedim(0, linear.axis).flatten())
    return map_records(composed([turned, conv, back]), store, place)


def _wrapping(linear: Wrapping, store: TensorStore, place: str) -> Record:
    """Circular padding, by where it takes its pixels."""
    count = math.prod(linear.inputs)
    numbers = torch.arange(count, dtype=torch.float64).view(1, *linear.inputs)
    taken = taking(linear.inputs, linear.outputs, linear(numbers).flatten().long())
    return _taken(store.add(f"{place}.index", taken.index), taken)


def _scale(linear: Scale, store: TensorStore, place: str) -> Record:
    return {
        "map": "scale",
        "factor": store.add(f"{place}.factor", linear.factor.double()),
        "shift": _named(linear.shift, store, f"{place}.shift"),
        "norm": hexadecimal(claimed_norm(linear)),
    }


def _adjoint(linear: Adjoint, store: TensorStore, place: str) -> Record:
    """A transposed matrix, or the adjoint of a convolution."""
    of = linear.of
    if isinstance(of, Dense):
        return weighted(Dense(of.weight.T, linear.bias), store, place)
    if not isinstance(of, Convolution):
        raise NotApplicableError(f"no proof of the adjoint of a {type(of).__name__} ({place})")
    inner = weighted(replace(of, bias=None), store, place)
    return {
        "map": "adjoint",
        "norm": inner["norm"],
        "of": inner,
        "inputs": list(of.inputs),
        "bias": _named(linear.bias, store, f"{place}.bias"),
    }


def _exponential(
    linear: TruncatedExponential | Polynomial, store: TensorStore, place: str
) -> Record:
    """The truncated exponential of a skew convolution."""
    if linear.base is None or linear.bound is None:
        raise NotApplicableError(f"no proof of a sum of maps can be written yet ({place})")
    inner, bound = Record(), math.inf
    for witness in ("kernel", None):  # a norm up to 3 or so is enough for many terms
        inner = weighted(linear.base, store, place, witness=witness)
        norm = torch.tensor(float.fromhex(inner["norm"]), dtype=torch.float64)
        bound = float(truncated_exponential(norm, linear.terms))
        if bound == 1:
            break
    return {"map": "exponential", "norm": hexadecimal(bound), "of": inner, "terms": linear.terms}


def weighted(
    linear: LinearMap, store: TensorStore, place: str, witness: str | None = None
) -> Record:
    """A matrix or a convolution, whose norm is shown in this way if one is named."""
    assert isinstance(linear, Dense | Convolution)
    tensors = {
        "weight": store.add(f"{place}.weight", linear.weight),
        "bias": _named(linear.bias, store, f"{place}.bias"),
    }
    if isinstance(linear, Dense):
        return {"map": "dense", "norm": hexadecimal(claimed_norm(linear))} | tensors
    norm, witness = claimed_norm_of_convolution(linear, witness)
    return {
        "map": "convolution",
        "norm": hexadecimal(norm),
        "witness": witness,
        "stride": list(linear.stride),
        "padding": list(linear.padding),
        "dilation": list(linear.dilation),
        "groups": linear.groups,
        "circular": linear.circular,
    } | tensors


def _named(tensor: Tensor | None, store: TensorStore, name: str) -> str | None:
    return None if tensor is None else store.add(name, tensor)
