"""The best proved bound that a given time allows, and how far above the truth it can be."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from onelip.bounds._eclipse import eclipse, eclipse_fast
from onelip.bounds._liplt import liplt
from onelip.bounds._lipsdp import lipsdp
from onelip.bounds._product import naive
from onelip.chains import Chain, Shape
from onelip.deadline import Deadline, OutOfTimeError
from onelip.errors import NotApplicableError, UnboundedModuleError, UsageError
from onelip.estimates import lower_estimate
from onelip.lipschitz import bound_of_part
from onelip.norms.proved_once import proved_once
from onelip.norms.rounding import product
from onelip.reading import read, read_program

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


@proved_once()
def best(
    model: nn.Module | ExportedProgram | Chain,
    input_shape: Shape | None = None,
    *,
    seconds: float = 60.0,
) -> Best:
    """The smallest of all proved bounds of a network's Lipschitz constant that fit into a time.

    The product of norms and LipLT, ECLipsE, LipSDP, cheapest first: a method begins if it is
    expected to end in time, and stops when its time is over. The norms of single layers are always
    proved, whatever they take: without them there is no bound.

    Bound: the minimum of what the methods proved; for a module, ``lipschitz_bound`` is one of them,
    as far as it ends in a quarter of the time.
    Cost: about ``seconds``, a tenth of it for the lower estimate. On other machines, or with other
    load, other methods may fit.

    Args:
        model: a network in eval mode, an exported program, or a chain.
        input_shape: of one input, without the batch; programs and chains know their own.
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
    deadline = Deadline(seconds)
    if isinstance(model, Chain):
        chain = model
    elif isinstance(model, ExportedProgram):
        chain = read_program(model)
    elif input_shape is None:
        raise UsageError("the shape of one input is needed: best(model, (3, 32, 32))")
    else:
        chain = read(model, input_shape)
    below = seconds * _SHARE_OF_LOWER
    with torch.no_grad():
        chain = chain.exact()
        tried = [_proved(METHODS[0], chain, max(0.0, deadline.left - below))]
        if isinstance(model, nn.Module):
            tried.append(_of_layers(model, Deadline((deadline.left - below) / 4)))
        tried += [_try(method, chain, deadline.left - below) for method in METHODS[1:]]
    start = time.monotonic()
    estimate = lower_estimate(chain, seconds=min(below, max(deadline.left, 1e-9)))
    lower = Tried("lower estimate", float(estimate), time.monotonic() - start)
    bound, name = min(
        ((t.bound, t.method) for t in tried if t.bound is not None), key=lambda found: found[0]
    )
    return Best(torch.tensor(bound, dtype=torch.float64), name, tuple(tried), lower)


def _of_layers(model: nn.Module, deadline: Deadline) -> Tried:
    """The product of what the modules prove of themselves, without knowing the image's size.

    ``read`` has refused hooks and patched methods.
    """
    start, bounds = time.monotonic(), [torch.ones((), dtype=torch.float64)]
    try:
        for part in model if type(model) is nn.Sequential else [model]:
            deadline.allow()
            bounds.append(bound_of_part(part))
        bound, note = float(product(bounds)), ""
    except UnboundedModuleError as error:  # some are read that have no bound by themselves
        bound, note = None, str(error)
    except OutOfTimeError:
        bound, note = None, "does not end in its share of the time: give more --seconds"
    return Tried("layer by layer", bound, time.monotonic() - start, note)


def _try(method: _Method, chain: Chain, left: float) -> Tried:
    needed = method.work(chain) / _FLOPS
    if needed > left or left <= 0:
        more = f"takes {max(1, math.ceil(needed))} s or more of what is left: give more --seconds"
        return Tried(method.name, None, 0.0, more)
    return _proved(method, chain, left)


def _proved(method: _Method, chain: Chain, left: float) -> Tried:
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


METHODS = (
    _Method("naive", lambda c, t: naive(c, work=_ENOUGH, seconds=t / 4), _nothing),
    _Method("LipLT", lambda c, t: liplt(c, work=_ENOUGH, seconds=t / 2), _nothing),
    _Method("ECLipsE-Fast", lambda chain, _: eclipse_fast(chain), _cubes),
    _Method("ECLipsE", lambda chain, left: eclipse(chain, seconds=left), _cubes),
    _Method("LipSDP-Layer", lambda c, t: lipsdp(c, multipliers="layer", seconds=t), _cubes),
    _Method("LipSDP-Neuron", lambda c, t: lipsdp(c, multipliers="neuron", seconds=t), _steps),
)
"""Every method, in the order in which they are tried."""
