"""Elementwise activations as records of ``proof.json``, with slopes as the checker takes them."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from onelip import layers
from onelip.activations import ACTIVATIONS
from onelip.chains import Block
from onelip.proofs.maps import Record
from onelip.proofs.tensors import TensorStore
from onelip.reading.graphs.clamps import Clamp

Interval = tuple[float, float]

_SMOOTH: dict[str, Interval] = {
    "softplus": (0.0, 1.0),
    "tanh": (0.0, 1.0),
    "sigmoid": (0.0, 0.25),
    "elu": (0.0, 1.0),
    "silu": (-0.1, math.nextafter(1.1, 2)),
    "gelu": (math.nextafter(-0.12905, -1), math.nextafter(1.12905, 2)),
    "gelu-tanh": (math.nextafter(-0.12905, -1), math.nextafter(1.12905, 2)),
    "mish": (math.nextafter(-0.11253, -1), math.nextafter(1.0885, 2)),
    "softsign": (0.0, 1.0),
}
"""Slopes of the format, rounded outwards."""

_NAMES = {nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.SiLU: "silu", nn.Mish: "mish"}
_NAMES |= {nn.Softsign: "softsign"}
_SELU = 1.0507009873554805, 1.0507009873554805 * 1.6732632423543772


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


def elementwise_record(block: Block, store: TensorStore, place: str) -> Written | None:
    """An elementwise activation; None for one without a record."""
    module = block.nonlinearity.module
    ways = _named, _scaled, _leaky, _piecewise
    found = (way(module, block, store, place) for way in ways)
    return next((written for written in found if written is not None), None)


def identity_record(store: TensorStore, place: str) -> Record:
    """An activation that changes nothing."""
    return _slopes(torch.ones(()), store, place)


def _slopes(slopes: Tensor, store: TensorStore, place: str) -> Record:
    return {"kind": "leaky-relu", "slopes": store.add(f"{place}.slopes", slopes)}


def _named(module: Any, *_: object) -> Written | None:
    """A smooth activation without settings."""
    name = _NAMES.get(type(module))
    if type(module) is nn.Softplus and module.beta == 1:
        name = "softplus"
    if type(module) in (nn.ELU, nn.CELU) and module.alpha == 1:
        name = "elu"
    if type(module) is nn.GELU:
        name = "gelu" if module.approximate == "none" else "gelu-tanh"
    return None if name is None else Written({"kind": name}, _SMOOTH[name])


def _scaled(module: Any, _: Block, store: TensorStore, place: str) -> Written | None:
    """A smooth activation with other scales of its input, and of its result above and below 0."""
    if type(module) is nn.Softplus:
        of, inner, above, below = "softplus", module.beta, 1 / module.beta, 1 / module.beta
    elif type(module) is nn.LogSigmoid:
        of, inner, above, below = "softplus", -1.0, -1.0, -1.0
    elif type(module) is nn.ELU:
        of, inner, above, below = "elu", 1.0, 1.0, module.alpha
    elif type(module) is nn.CELU:
        of, inner, above, below = "elu", 1 / module.alpha, module.alpha, module.alpha
    elif type(module) is nn.SELU:
        of, inner, (above, below) = "elu", 1.0, _SELU
    else:
        return None
    factors = {"inner": inner, "above": above, "below": below}
    tensors = {name: torch.tensor(float(x), dtype=torch.float64) for name, x in factors.items()}
    outer = Fraction(float(above)), Fraction(float(below))
    products = [Fraction(x) * Fraction(float(inner)) * c for x in _SMOOTH[of] for c in outer]
    names = {name: store.add(f"{place}.{name}", tensor) for name, tensor in tensors.items()}
    return Written({"kind": "scaled", "of": of} | names, _around(products))


def _around(numbers: Sequence[Fraction]) -> Interval:
    """The least and the largest number, rounded outwards."""
    low, high = float(min(numbers)), float(max(numbers))
    low = low if low <= min(numbers) else math.nextafter(low, -math.inf)
    return low, high if high >= max(numbers) else math.nextafter(high, math.inf)


def _leaky(module: Any, block: Block, store: TensorStore, place: str) -> Written | None:
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
