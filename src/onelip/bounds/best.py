"""The best proved bound that a given time allows, and how far above the truth it can be."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from onelip.bounds.eclipse import eclipse, eclipse_fast
from onelip.bounds.liplt import liplt
from onelip.bounds.lipsdp import lipsdp
from onelip.bounds.naive import naive
from onelip.chains import Chain, Shape
from onelip.errors import NotApplicableError, UsageError
from onelip.estimates import lower_estimate
from onelip.reading import read

_FLOPS = 2e10  # float64 multiplications a second of one core, about
_ENOUGH = 5e12  # multiplications beyond which LipLT is not given more
_SHARE_OF_LOWER = 0.1  # of the time


@dataclass(frozen=True)
class Tried:
    """One method.

    Attributes:
        method: its name.
        bound: what it proved, None if it did not run.
        seconds: how long it took.
        note: why it did not run.
    """

    method: str
    bound: float | None
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Best:
    """What ``best`` found.

    Attributes:
        bound: 0-d float64, the smallest proved bound.
        method: which method gave it.
        tried: all methods, cheapest first.
        lower: a number that the constant is known to exceed, up to rounding: an estimate.
    """

    bound: Tensor
    method: str
    tried: tuple[Tried, ...]
    lower: Tried


class _Method(NamedTuple):
    name: str
    prove: Callable[[Chain, float], Tensor]
    work: Callable[[Chain], float]  # multiplications at least, where it cannot stop by itself


def best(
    model: nn.Module | Chain, input_shape: Shape | None = None, *, seconds: float = 60.0
) -> Best:
    """The smallest of all proved bounds of a network's Lipschitz constant that fit into a time.

    The product of norms and LipLT, ECLipsE, LipSDP, cheapest first: a method begins if it is
    expected to end in time, the product always.

    Bound: the minimum of what the methods proved.
    Cost: about ``seconds``, a tenth of it for the lower estimate. On other machines, or with other
    load, other methods may fit.

    Args:
        model: a network in eval mode, or a chain.
        input_shape: of one input, without the batch; a chain knows its own.
        seconds: for everything together.

    Raises:
        UsageError: no input shape, or no time.
        UnboundedModuleError: a part of the network has no proved bound.
        NonFiniteError: a weight is infinite or NaN.

    Example:
        >>> import onelip
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = onelip.bounds.best(model, (3,), seconds=1)
        >>> found.lower.bound <= float(found.bound) <= float(onelip.lipschitz_bound(model))
        True
    """
    if not seconds > 0:
        raise UsageError(f"seconds must be positive, got {seconds}")
    if isinstance(model, Chain):
        chain = model
    elif input_shape is None:
        raise UsageError("the shape of one input is needed: best(model, (3, 32, 32))")
    else:
        chain = read(model, input_shape)
    end = time.monotonic() + seconds * (1 - _SHARE_OF_LOWER)
    with torch.no_grad():
        chain = chain.exact()
        tried = [_try(METHODS[0], chain, max(seconds, 1.0))]
        tried += [_try(method, chain, end - time.monotonic()) for method in METHODS[1:]]
    start = time.monotonic()
    lower = lower_estimate(chain, seconds=seconds * _SHARE_OF_LOWER)
    below = Tried("lower estimate", float(lower), time.monotonic() - start)
    bound, name = min((t.bound, t.method) for t in tried if t.bound is not None)
    return Best(torch.tensor(bound, dtype=torch.float64), name, tuple(tried), below)


def _try(method: _Method, chain: Chain, left: float) -> Tried:
    if method.work(chain) / _FLOPS > left or left <= 0:
        return Tried(method.name, None, 0.0, "does not fit into the time: give more --seconds")
    start = time.monotonic()
    try:
        bound = float(method.prove(chain, left))
    except NotApplicableError as error:
        return Tried(method.name, None, time.monotonic() - start, str(error))
    return Tried(method.name, bound, time.monotonic() - start)


def _widths(chain: Chain) -> list[int]:
    return [chain.blocks[0].inner.columns, *(block.inner.rows for block in chain.blocks)]


def _cubes(chain: Chain) -> float:
    """What factoring one matrix per layer takes, a few times over."""
    return 60.0 * sum(width**3 for width in _widths(chain)) if chain.blocks else 0.0


def _steps(chain: Chain) -> float:
    """What a few Newton steps take, in all neurons together."""
    return 10.0 * float(sum(_widths(chain))) ** 3 if chain.blocks else 0.0


def _nothing(_: Chain) -> float:
    return 0.0


def _work(left: float) -> float:
    """Multiplications for products of layers: half of the time that is left."""
    return min(_ENOUGH, left / 2 * _FLOPS)


METHODS = (
    _Method("naive", lambda chain, left: naive(chain, work=_work(left)), _nothing),
    _Method("LipLT", lambda chain, left: liplt(chain, work=_work(left)), _nothing),
    _Method("ECLipsE-Fast", lambda chain, _: eclipse_fast(chain), _cubes),
    _Method("ECLipsE", lambda chain, left: eclipse(chain, seconds=left), _cubes),
    _Method("LipSDP-Layer", lambda c, t: lipsdp(c, multipliers="layer", seconds=t), _cubes),
    _Method("LipSDP-Neuron", lambda c, t: lipsdp(c, multipliers="neuron", seconds=t), _steps),
)
"""Every method, in the order in which they are tried."""
