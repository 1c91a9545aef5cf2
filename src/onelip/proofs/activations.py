"""Nonlinearities as records of ``proof.json``, with their slopes as the checker takes them."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip import layers
from onelip.activations import ACTIVATIONS
from onelip.chains import Block, Elementwise, GroupSorting, Opaque, Scale
from onelip.chains.linear_layers import taking
from onelip.errors import NotApplicableError
from onelip.norms.windows import overlap_of_maxima
from onelip.proofs.claims import ROOM, hexadecimal
from onelip.proofs.maps import Record, map_records
from onelip.proofs.tensors import TensorStore
from onelip.reading.graphs.clamps import Clamp

Interval = tuple[float, float]


class Written(NamedTuple):
    """An activation, and linear maps around it.

    Attributes:
        record: of the activation.
        slopes: an interval, or a Lipschitz constant and its negative in its place.
        before: records of maps in front of it.
        after: records of maps after it.
    """

    record: Record
    slopes: Interval
    before: Sequence[Record] = ()
    after: Sequence[Record] = ()


def activation_record(block: Block, store: TensorStore, place: str) -> Written:
    """The nonlinearity of a block.

    Raises:
        NotApplicableError: it has no record in this format.
    """
    kind, module = block.nonlinearity, block.nonlinearity.module
    found: Written | None = None
    if isinstance(kind, GroupSorting) and isinstance(module, layers.MaxMin | layers.GroupSort):
        down = isinstance(module, layers.MaxMin)
        found = Written({"kind": "sort", "size": kind.size, "descending": down}, (-1.0, 1.0))
    if isinstance(kind, Elementwise):
        found = _smooth(module) or _leaky(module, block, store, place)
        found = found or _piecewise(module, block, store, place)
    if isinstance(kind, Opaque):
        found = _opaque(module, block, store, place)
    if found is None:
        raise NotApplicableError(
            f"no proof of {type(module).__name__} can be written yet ({place})"
        )
    return found


def identity_record(store: TensorStore, place: str) -> Record:
    """An activation that changes nothing."""
    return _slopes(torch.ones(()), store, place)


def _slopes(slopes: Tensor, store: TensorStore, place: str) -> Record:
    return {"kind": "leaky-relu", "slopes": store.add(f"{place}.slopes", slopes)}


def _smooth(module: nn.Module) -> Written | None:
    """A smooth activation, with the slopes of the format; None for any other."""
    names = {nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.SiLU: "silu"}
    name = names.get(type(module))
    if type(module) is nn.Softplus and module.beta == 1:
        name = "softplus"
    if type(module) in (nn.ELU, nn.CELU) and module.alpha == 1:
        name = "elu"
    slopes = {"sigmoid": (0.0, 0.25), "silu": (-0.1, math.nextafter(1.1, 2))}
    return None if name is None else Written({"kind": name}, slopes.get(name, (0.0, 1.0)))


def _leaky(module: nn.Module, block: Block, store: TensorStore, place: str) -> Written | None:
    """What is the identity above 0 and has another slope below; None for any other activation."""
    fixed = {nn.ReLU: 0.0, nn.Identity: 1.0, layers.Abs: -1.0}
    if type(module) in fixed:
        slopes = torch.tensor(fixed[type(module)])
    elif isinstance(module, nn.LeakyReLU):
        slopes = torch.tensor(float(module.negative_slope), dtype=torch.float64)
    elif type(module) is nn.PReLU:
        slopes = module.weight.detach().view(-1, *(1,) * (len(block.inner.outputs) - 1))
    else:
        return None
    ends = min(float(slopes.min()), 1.0), max(float(slopes.max()), 1.0)
    return Written(_slopes(slopes, store, place), ends)


def _piecewise(module: Any, block: Block, store: TensorStore, place: str) -> Written | None:
    """An activation in pieces with constant slopes, or Hardswish; None for any other."""
    pieces = _pieces(module, block)
    if pieces is None:
        return None
    knots, slopes, value = (part.double() for part in (pieces[0], pieces[1], pieces[3]))
    bends, ends = pieces[2], [slopes]
    if bends is not None:
        ends.append(slopes[1:-1] + bends * knots.diff(dim=0))
    record = {
        "kind": "piecewise",
        "knots": store.add(f"{place}.knots", knots),
        "slopes": store.add(f"{place}.slopes", slopes),
        "bends": None if bends is None else store.add(f"{place}.bends", bends),
        "value": store.add(f"{place}.value", value),
    }
    low, high = (float(torch.cat([e.flatten() for e in ends]).aminmax()[k]) for k in (0, 1))
    return Written(record, (low, high))


def _pieces(module: Any, block: Block) -> tuple[Tensor, Tensor, Tensor | None, Tensor] | None:
    """Knots, slopes, bends and the value at the first knot."""
    if type(module) is layers.NActivation:
        shape = 2, -1, *(1,) * (len(block.inner.outputs) - 1)
        knots = module.theta.detach().cpu().sort(dim=0).values.view(shape)
        slopes = torch.tensor([1.0, -1.0, 1.0]).view(3, *(1,) * (knots.ndim - 1))
        return knots, slopes.expand(3, *knots.shape[1:]), None, -knots[0]
    if isinstance(module, Clamp):
        return _clamp(module)
    if type(module) is nn.Hardswish:
        third = torch.tensor([1 / 3], dtype=torch.float64)
        return torch.tensor([-3.0, 3.0]), torch.tensor([0.0, -0.5, 1.0]), third, torch.zeros(())
    known = ACTIVATIONS.get(type(module))
    pieces = None if known is None or known.pieces is None else known.pieces(module)
    if pieces is None or not all(isinstance(slope, float | int) for slope in pieces.slopes):
        return None
    first, last = (sum(end == far for end in pieces.ends) for far in (-math.inf, math.inf))
    knots = torch.tensor(pieces.ends[first : len(pieces.ends) - last], dtype=torch.float64)
    slopes = torch.tensor(pieces.slopes[first : len(pieces.slopes) - last], dtype=torch.float64)
    return (knots, slopes, None, module(knots[:1])[0]) if len(knots) else None


def _clamp(module: Clamp) -> tuple[Tensor, Tensor, Tensor | None, Tensor] | None:
    """A minimum and a maximum with constants."""
    ends = [end.detach().cpu() for end in (module.low, module.high) if end is not None]
    knots = torch.stack(torch.broadcast_tensors(*ends))
    if not torch.isfinite(knots).all() or not (knots.diff(dim=0) >= 0).all():
        return None
    slopes = [0.0] * (module.low is not None) + [1.0] + [0.0] * (module.high is not None)
    numbers = torch.tensor(slopes).view(-1, *(1,) * (knots.ndim - 1))
    return knots, numbers.expand(-1, *knots.shape[1:]), None, knots[0]


def _opaque(module: Any, block: Block, store: TensorStore, place: str) -> Written | None:
    """A map of which chains know the constant alone."""
    if type(module) in (nn.MaxPool2d, layers.ScaledMaxPool2d):
        return _max_pool(module, block, store, place)
    if type(module) is layers.FixedFourierConv2d:
        before = _fourier(module, block, store, place)
        return Written(identity_record(store, place), (1.0, 1.0), before)
    return None


def _max_pool(module: Any, block: Block, store: TensorStore, place: str) -> Written:
    """Maxima over windows, and perhaps a factor after them."""
    size, stride = _pair(module.kernel_size), _pair(module.stride)
    padded = _pair(getattr(module, "padding", 0)) != [0, 0]
    spread = _pair(getattr(module, "dilation", 1)) != [1, 1]
    if padded or spread or getattr(module, "ceil_mode", False):
        raise NotApplicableError("no proof of max pooling with padding can be written yet")
    overlap = overlap_of_maxima(list(zip(size, stride, strict=True)))
    constant = 1.0 if overlap == 1 else math.sqrt(overlap) * ROOM
    record = {"kind": "max-pool", "size": size, "stride": stride}
    return Written(record, (-constant, constant), after=_scaled(module, block, store, place))


def _scaled(pool: Any, block: Block, store: TensorStore, place: str) -> list[Record]:
    """The factor that a pool may have."""
    factor = torch.tensor(getattr(pool, "scale", 1.0), dtype=torch.float64)
    return [] if factor == 1 else map_records(Scale(block.hidden, factor), store, f"{place}.pool")


def _fourier(
    module: layers.FixedFourierConv2d, block: Block, store: TensorStore, place: str
) -> list[Record]:
    """A matrix for each frequency, with pixels of a stride as channels before."""
    before, inputs, stride = [], block.inner.outputs, module.stride
    if stride > 1:
        numbers = torch.arange(block.inner.rows).view(1, *inputs)
        pixels = F.pixel_unshuffle(numbers, stride)[0]
        before = map_records(taking(inputs, pixels.shape, pixels.flatten()), store, place)
    weight = torch.view_as_real(module.weight.detach().resolve_conj())
    norms = torch.linalg.matrix_norm(module.weight.detach().cpu().to(torch.cdouble), 2)
    return [
        *before,
        {
            "map": "fourier",
            "norm": hexadecimal(norms.max() * ROOM),
            "weight": store.add(f"{place}.weight", weight),
            "bias": None if module.bias is None else store.add(f"{place}.bias", module.bias),
        },
    ]


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(side) for side in value]
