"""Chains as the records of ``proof.json``: maps, activations and blocks, each with its claim."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from onelip import layers
from onelip.chains import (
    Adjoint,
    Block,
    Chain,
    Composition,
    Convolution,
    Dense,
    Elementwise,
    GroupSorting,
    LinearMap,
    Opaque,
    Reshape,
    Scale,
)
from onelip.chains.linear_layers import taking
from onelip.chains.linear_map import Taking
from onelip.chains.windows import Wrapping
from onelip.errors import NotApplicableError
from onelip.layers.gradient_step import mirrored
from onelip.proofs.claims import ROOM, claimed_norm, claimed_norm_of_convolution, hexadecimal
from onelip.proofs.tensors import TensorStore
from onelip.reading.graphs.gradient_steps import Step, step_of

Record = dict[str, Any]

_ROUNDING = 2.0**-48  # relative: more than a few operations of float64 lose


def network_record(chain: Chain, store: TensorStore) -> Record:
    """A network with all its claims; its tensors go to the store.

    Raises:
        NotApplicableError: a part has no record in this format; the message names it.
    """
    blocks: list[Record] = []
    for place, block in enumerate(chain.blocks):
        blocks += _block(block, store, f"block{place}")
    return {"blocks": blocks, "last": map_records(chain.last, store, "last")}


def map_records(linear: LinearMap, store: TensorStore, place: str) -> list[Record]:
    """A linear map as its parts, one after the other."""
    if isinstance(linear, Composition):
        parts = [map_records(part, store, f"{place}.{i}") for i, part in enumerate(linear.maps)]
        return [record for part in parts for record in part]
    if isinstance(linear, Reshape):
        return [] if linear.inputs == linear.outputs else [_taken(None, linear)]
    return [_record(linear, store, place)]


def _record(linear: LinearMap, store: TensorStore, place: str) -> Record:
    """A map without parts."""
    if isinstance(linear, Taking):
        return _taken(store.add(f"{place}.index", linear.index), linear)
    if isinstance(linear, Wrapping):
        return _wrapping(linear, store, place)
    if isinstance(linear, Scale):
        return _scale(linear, store, place)
    if isinstance(linear, Adjoint):
        return _weighted(_turned(linear), store, place)
    if isinstance(linear, Dense | Convolution):
        return _weighted(linear, store, place)
    raise NotApplicableError(f"no proof of a {type(linear).__name__} can be written yet ({place})")


def norm_of_records(records: list[Record]) -> float:
    """Product of the claimed norms, rounded up; 1 for no maps."""
    norms = [float.fromhex(record["norm"]) for record in records]
    return math.prod(norms) * (1 + _ROUNDING * len(norms))


def body_constant(network: Record) -> float:
    """Product of the claimed constants of the blocks, rounded up."""
    constants = [float.fromhex(block["bound"]) for block in network["blocks"]]
    return math.prod(constants) * (1 + _ROUNDING * len(constants))


def _taken(index: str | None, linear: LinearMap) -> Record:
    norm = 1.0 if isinstance(linear, Reshape) else claimed_norm(linear)
    outputs = list(linear.outputs)
    return {"map": "take", "index": index, "outputs": outputs, "norm": hexadecimal(norm)}


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


def _turned(linear: Adjoint) -> LinearMap:
    """The adjoint as a matrix or a convolution of its own."""
    of = linear.of
    if isinstance(of, Dense):
        return Dense(of.weight.T, linear.bias)
    if isinstance(of, Convolution) and of.stride == (1, 1) and of.groups == 1:
        turned = replace(of, inputs=of.outputs, weight=mirrored(of.weight), bias=linear.bias)
        if turned.outputs == of.inputs:
            return turned
    raise NotApplicableError("no proof of a transposed convolution can be written yet")


def _weighted(linear: LinearMap, store: TensorStore, place: str) -> Record:
    """A matrix or a convolution."""
    assert isinstance(linear, Dense | Convolution)
    tensors = {
        "weight": store.add(f"{place}.weight", linear.weight),
        "bias": _named(linear.bias, store, f"{place}.bias"),
    }
    if isinstance(linear, Dense):
        return {"map": "dense", "norm": hexadecimal(claimed_norm(linear))} | tensors
    norm, witness = claimed_norm_of_convolution(linear)
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


def _block(block: Block, store: TensorStore, place: str) -> list[Record]:
    """A block; of a gradient step, the maps in front of it are a block of their own."""
    step = step_of(block)
    if step is not None and block.skip is not None:
        before = map_records(block.skip, store, f"{place}.before")
        return [*_linear_block(before, store), _step(block, step, store, place)]
    inner = map_records(block.inner, store, f"{place}.inner")
    activation, (low, high) = _activation(block, store, place)
    outer = [] if block.outer is None else map_records(block.outer, store, f"{place}.outer")
    skip = None if block.skip is None else map_records(block.skip, store, f"{place}.skip")
    constant = max(high, -low) * norm_of_records(inner) * norm_of_records(outer)
    constant += 0.0 if skip is None else norm_of_records(skip)
    bound = hexadecimal(constant * (1 + _ROUNDING))
    return [
        {"inner": inner, "activation": activation, "outer": outer, "skip": skip, "bound": bound}
    ]


def _step(block: Block, step: Step, store: TensorStore, place: str) -> Record:
    """``x - step W^T phi(W x)``, whose constant is 1 as long as the step is short."""
    inner = _weighted(step.linear, store, f"{place}.inner")
    activation, (low, high) = _activation(block, store, place)
    reach = step.length * float.fromhex(inner["norm"]) ** 2 * (1 + _ROUNDING)
    constant = max(1.0, (reach * high - 1) * (1 + _ROUNDING), (1 - reach * min(low, 0.0)))
    return {
        "inner": [inner],
        "activation": activation,
        "step": hexadecimal(step.length),
        "bound": hexadecimal(constant if low >= 0 else constant * (1 + _ROUNDING)),
    }


def _linear_block(maps: list[Record], store: TensorStore) -> list[Record]:
    """Linear maps as a block whose activation changes nothing; none for none."""
    if not maps:
        return []
    activation = _leaky(torch.ones(()), store, "identity")
    bound = hexadecimal(norm_of_records(maps) * (1 + _ROUNDING))
    return [{"inner": maps, "activation": activation, "outer": [], "skip": None, "bound": bound}]


def _leaky(slopes: Tensor, store: TensorStore, place: str) -> Record:
    return {"kind": "leaky-relu", "slopes": store.add(f"{place}.slopes", slopes)}


def _activation(block: Block, store: TensorStore, place: str) -> tuple[Record, tuple[float, float]]:
    """An activation, and its slopes as the checker takes them."""
    kind, module = block.nonlinearity, block.nonlinearity.module
    if isinstance(kind, GroupSorting):
        known = isinstance(module, layers.MaxMin | layers.GroupSort)
        if known:
            down = isinstance(module, layers.MaxMin)
            return {"kind": "sort", "size": kind.size, "descending": down}, (-1.0, 1.0)
    if isinstance(kind, Elementwise):
        slopes = _slopes_below_zero(module, block)
        if slopes is not None:
            ends = float(slopes.min()), float(slopes.max())
            return _leaky(slopes, store, place), (min(ends[0], 1.0), max(ends[1], 1.0))
    if isinstance(kind, Opaque) and type(module) is nn.MaxPool2d:
        record, constant = _max_pool(module)
        return record, (-constant, constant)
    raise NotApplicableError(f"no proof of {type(module).__name__} can be written yet ({place})")


def _slopes_below_zero(module: nn.Module, block: Block) -> Tensor | None:
    """Factors below 0 of what is the identity above it; None for any other activation."""
    fixed = {nn.ReLU: 0.0, nn.Identity: 1.0, layers.Abs: -1.0}
    if type(module) in fixed:
        return torch.tensor(fixed[type(module)])
    if isinstance(module, nn.LeakyReLU):
        return torch.tensor(float(module.negative_slope), dtype=torch.float64)
    if type(module) is nn.PReLU:
        slopes: Tensor = module.weight.detach()
        return slopes.view(-1, *(1,) * (len(block.inner.outputs) - 1))
    return None


def _max_pool(module: nn.MaxPool2d) -> tuple[Record, float]:
    size, stride = (_pair(value) for value in (module.kernel_size, module.stride))
    plain = _pair(module.padding) == [0, 0] and _pair(module.dilation) == [1, 1]
    if not plain or module.ceil_mode or module.return_indices:
        raise NotApplicableError("no proof of max pooling with padding can be written yet")
    overlap = math.prod(-(-k // s) for k, s in zip(size, stride, strict=True))
    constant = 1.0 if overlap == 1 else math.sqrt(overlap) * ROOM
    return {"kind": "max-pool", "size": size, "stride": stride}, constant


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(side) for side in value]
