"""Chains as the records of ``proof.json``: blocks and activations, each with its claim."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from onelip import layers
from onelip.chains import Block, Chain, Elementwise, GroupSorting, Opaque, Scale
from onelip.errors import NotApplicableError
from onelip.norms.windows import overlap_of_maxima
from onelip.proofs.claims import ROOM, hexadecimal
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
    activation, (low, high) = _activation(block, store, place)
    outer = _scale_of_pool(block, store, place)
    outer += [] if block.outer is None else map_records(block.outer, store, f"{place}.outer")
    skip = None if block.skip is None else map_records(block.skip, store, f"{place}.skip")
    constant = max(high, -low) * norm_of_records(inner) * norm_of_records(outer)
    constant += 0.0 if skip is None else norm_of_records(skip)
    bound = hexadecimal(constant * (1 + ROUNDING))
    return [
        {"inner": inner, "activation": activation, "outer": outer, "skip": skip, "bound": bound}
    ]


def _step(block: Block, step: Step, store: TensorStore, place: str) -> Record:
    """``x - step W^T phi(W x)``, whose constant is 1 as long as the step is short."""
    inner = weighted(step.linear, store, f"{place}.inner")
    activation, (low, high) = _activation(block, store, place)
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
    activation = _leaky(torch.ones(()), store, "identity")
    bound = hexadecimal(norm_of_records(maps) * (1 + ROUNDING))
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
        smooth = _smooth(module)
        if smooth is not None:
            return smooth
        slopes = _slopes_below_zero(module, block)
        if slopes is not None:
            ends = float(slopes.min()), float(slopes.max())
            return _leaky(slopes, store, place), (min(ends[0], 1.0), max(ends[1], 1.0))
    if isinstance(kind, Opaque) and type(module) in (nn.MaxPool2d, layers.ScaledMaxPool2d):
        record, constant = _max_pool(module)
        return record, (-constant, constant)
    raise NotApplicableError(f"no proof of {type(module).__name__} can be written yet ({place})")


def _smooth(module: nn.Module) -> tuple[Record, tuple[float, float]] | None:
    """A smooth activation, with the slopes of the format; None for any other."""
    names = {nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.SiLU: "silu"}
    name = names.get(type(module))
    if type(module) is nn.Softplus and module.beta == 1:
        name = "softplus"
    if type(module) in (nn.ELU, nn.CELU) and module.alpha == 1:
        name = "elu"
    slopes = {"sigmoid": (0.0, 0.25), "silu": (-0.1, math.nextafter(1.1, 2))}
    return None if name is None else ({"kind": name}, slopes.get(name, (0.0, 1.0)))


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


def _scale_of_pool(block: Block, store: TensorStore, place: str) -> list[Record]:
    """The factor that a pool has after its maxima."""
    pool = block.nonlinearity.module
    if type(pool) is not layers.ScaledMaxPool2d or pool.scale == 1:
        return []
    factor = torch.tensor(pool.scale, dtype=torch.float64)
    return map_records(Scale(block.hidden, factor), store, f"{place}.pool")


def _max_pool(module: Any) -> tuple[Record, float]:
    """Maxima over windows, and their Lipschitz constant."""
    size, stride = _pair(module.kernel_size), _pair(module.stride)
    padded = _pair(getattr(module, "padding", 0)) != [0, 0]
    spread = _pair(getattr(module, "dilation", 1)) != [1, 1]
    if padded or spread or getattr(module, "ceil_mode", False):
        raise NotApplicableError("no proof of max pooling with padding can be written yet")
    overlap = overlap_of_maxima(list(zip(size, stride, strict=True)))
    constant = 1.0 if overlap == 1 else math.sqrt(overlap) * ROOM
    return {"kind": "max-pool", "size": size, "stride": stride}, constant


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(side) for side in value]
