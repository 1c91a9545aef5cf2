"""The smallest proved bound that a given time allows, with an estimate from below beside it."""

import math
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from onelip.bounds._liplt import LipLT
from onelip.bounds._product import Product
from onelip.bounds.layer_product import bound_by_layers
from onelip.bounds.logit_bounds import LogitBounds, least
from onelip.bounds.method import BoundMethod, Network, Shared, chain_of, limited, widths
from onelip.bounds.prefixes import Prefix, prefixes
from onelip.bounds.single_methods import SINGLE_METHODS
from onelip.chains import Chain, Shape
from onelip.deadline import Deadline, OutOfTimeError, measured_rate
from onelip.errors import NotApplicableError, UnboundedModuleError, UsageError
from onelip.estimates import lower_estimate
from onelip.lipschitz import has_unknown_class, refuse_hidden_behaviour, unwrapped
from onelip.method_names import BOUND_METHODS
from onelip.norms.proved_once import proved_once

_SHARE_OF_LOWER = 0.1  # of the time
_PLANNED = 0.9  # of the time of a report: the last pieces of work run over
_MOST = 0.7  # of what is left at the end: searches run over by a round
_SHARE_OF_PAIRS = 0.3  # of the time, for LipLT's constants of pairs


@dataclass(frozen=True)
class Tried:
    """Result of one method.

    Attributes:
        method: its name.
        bound: the proved bound, None if it did not run or did not finish.
        seconds: time that it took.
        note: the reason why there is no bound.
        more: what more time would give; empty where it would give nothing.
    """

    method: str
    bound: float | None
    seconds: float
    note: str = ""
    more: str = ""


@dataclass(frozen=True)
class BestReport:
    """All results of ``Best``.

    Attributes:
        bound: 0-d float64, the smallest proved bound.
        method: name of the method that proved it.
        tried: all methods, cheapest first.
        lower: a number that the constant is known to exceed, up to rounding: an estimate.
        prefixes: the same up to each layer: where the bound loses. As many as the time allowed.
    """

    bound: Tensor
    method: str
    tried: tuple[Tried, ...]
    lower: Tried
    prefixes: tuple[Prefix, ...] = ()


@dataclass(frozen=True)
class Best(BoundMethod):
    """Smallest of all proved bounds of a network's Lipschitz constant that fit into a time.

    The methods of ``onelip.bounds.METHODS``, cheapest first: closed forms, then multipliers that
    begin with those that are known, then LipLT. A method begins if the speed of this machine, which
    is measured, lets it have something to show in time, and stops with what is proved when its
    share of the time is over. The norms of single layers are always proved, whatever they take:
    without them there is no bound.

    Bound: the minimum of what the methods proved; for a module, ``lipschitz_bound`` is one of them,
    if it ends in a quarter of the time. For pairs of logits, the root of 2 times that, or the
    constants of the product of norms and of LipLT where they are smaller.
    Cost: about ``seconds``; ``report`` spends a tenth of it on the lower estimate, and another on
    the network up to each layer. On other machines, or with other load, other methods may fit.

    Args:
        seconds: time for all methods together.
        methods: names of those to try besides the product of norms; all if there are none.

    Raises:
        UsageError: ``seconds`` is not positive, or no such method.

    Example:
        >>> import onelip
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> found = onelip.bounds.Best(seconds=1).report(model, (3,))
        >>> found.lower.bound <= float(found.bound) <= float(onelip.lipschitz_bound(model))
        True
    """

    seconds: float = 60.0
    methods: tuple[str, ...] = ()
    name: ClassVar[str] = "best"

    def shared(self, networks: int) -> Self:
        """Spend the same seconds on all networks together."""
        return replace(self, seconds=self.seconds / networks)

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise UsageError(f"seconds must be positive, got {self.seconds}")
        for name in self.methods:
            if name not in BOUND_METHODS:
                raise UsageError(f"no bound method {name!r}; known: {', '.join(BOUND_METHODS)}")

    @torch.no_grad()
    @proved_once()
    def report(self, network: Network, input_shape: Shape | None = None) -> BestReport:
        """Return the smallest bound, the result of every method, and an estimate from below.

        Args:
            network: a module in eval mode, an exported program, or a chain.
            input_shape: of one input, without the batch; programs and chains know their own.

        Raises:
            UsageError: a module without the shape of its input.
            UnboundedModuleError: a part of the network has no proved bound.
            NonFiniteError: a weight is infinite or NaN.
        """
        deadline, below = Deadline(_PLANNED * self.seconds), self.seconds * _SHARE_OF_LOWER
        chain = chain_of(network, input_shape).exact()
        tried = self._all_tried(network, chain, deadline, 2 * below)
        bound, name = _smallest(tried)
        start = time.monotonic()
        estimate = lower_estimate(chain, seconds=min(below, max(deadline.left, 1e-9)))
        lower = Tried("lower estimate", float(estimate), time.monotonic() - start)
        parts = prefixes(chain, min(below, _MOST * deadline.left)) if chain.blocks else ()
        return BestReport(bound, name, tuple(tried), lower, parts)

    @torch.no_grad()
    @proved_once()
    def bound(self, network: Network, input_shape: Shape | None = None) -> Tensor:
        """Prove the smallest bound that fits into the time."""
        deadline = Deadline(self.seconds)
        chain = chain_of(network, input_shape).exact()
        return _smallest(self._all_tried(network, chain, deadline, 0.0))[0]

    def prove(self, chain: Chain) -> Tensor:
        """Prove the smallest bound of a chain that fits into the time."""
        return self.bound(chain)

    def logit_bounds(self, network: Network, input_shape: Shape | None = None) -> LogitBounds:
        """Proved constants of the logits, the smallest that fit into the time."""
        return self.proved_logits(network, input_shape)[1]

    @torch.no_grad()
    @proved_once()
    def proved_logits(
        self, network: Network, input_shape: Shape | None = None
    ) -> tuple[str, LogitBounds]:
        """Return the method with the smallest bound, by name, and the constants of the logits."""
        deadline, kept = Deadline(self.seconds), self.seconds * _SHARE_OF_PAIRS
        chain = chain_of(network, input_shape).exact()
        tried = self._all_tried(network, chain, deadline, kept)
        bound, name = _smallest(tried)
        found = limited(Product().logit_bounds(chain), bound)
        if any(t.method == LipLT.name and t.bound is not None for t in tried):
            with suppress(NotApplicableError):  # the time is over
                pairs = LipLT(seconds=max(deadline.left, 0.0)).logit_bounds(chain)
                found = least([found, pairs])
        return name, found

    def multiplications(self, chain: Chain) -> float:  # noqa: ARG002
        """Return infinity: ``Best`` does not try itself."""
        return math.inf

    def _all_tried(
        self, network: Network, chain: Chain, deadline: Deadline, kept: float
    ) -> list[Tried]:
        """The product and every method to try, as far as all but the seconds kept go."""
        # The first method is the product of norms: it always runs, so that there is a bound.
        first, *others = [m for m in SINGLE_METHODS if m.multiplications(chain) < math.inf]
        shared = Shared(chain)
        tried = [_proved(first, shared, max(0.0, deadline.left - kept))]
        network = unwrapped(network) if isinstance(network, nn.Module) else network
        if isinstance(network, nn.Module) and not has_unknown_class(network):
            tried.append(_by_layers(network, Deadline((deadline.left - kept) / 4)))
        chosen = [m for m in others if not self.methods or m.name in self.methods]
        rate = measured_rate(max(widths(chain), default=1))
        return tried + [_try(method, shared, deadline.left - kept, rate) for method in chosen]


def _smallest(tried: list[Tried]) -> tuple[Tensor, str]:
    """Return the smallest bound, and the name of the method that proved it."""
    bounds = ((t.bound, t.method) for t in tried if t.bound is not None)
    bound, name = min(bounds, key=lambda found: found[0])
    return torch.tensor(bound, dtype=torch.float64), name


def _by_layers(model: nn.Module, deadline: Deadline) -> Tried:
    """Multiply the bounds that the modules prove of themselves, for images of any size."""
    start = time.monotonic()
    refuse_hidden_behaviour(model)
    try:
        bound, note = float(bound_by_layers(model, deadline)), ""
    except UnboundedModuleError as error:  # the chain may still have a bound
        bound, note = None, str(error)
    except OutOfTimeError:
        bound, note = None, "does not end in its share of the time: give more --seconds"
    return Tried("layer by layer", bound, time.monotonic() - start, note)


def _try(method: BoundMethod, shared: Shared, left: float, rate: float) -> Tried:
    """Run a method if its first multiplications are expected to fit into its share of the time."""
    needed, left = method.multiplications(shared.chain) / rate, left * method.share
    if needed > left or left <= 0:
        more = f"takes {needed:.2g} s or more, has {max(left, 0):.2g} s: give more --seconds"
        return Tried(method.name, None, 0.0, more)
    return _proved(method, shared, left)


def _proved(method: BoundMethod, shared: Shared, left: float) -> Tried:
    """Run a method and record its bound, or the reason why it has none."""
    start = time.monotonic()
    try:
        found = method.within(left).outcome(shared)
    except NotApplicableError as error:
        return Tried(method.name, None, time.monotonic() - start, str(error))
    return Tried(method.name, float(found.bound), time.monotonic() - start, "", found.more)
