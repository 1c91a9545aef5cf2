"""The interface of a method that bounds the Lipschitz constant of a network."""

import abc
import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from onelip.bounds.block_product import DEFAULT_WORK, logits_by_blocks
from onelip.bounds.logit_bounds import LogitBounds, least, tightened
from onelip.bounds.semidefinite.forms import Multipliers
from onelip.bounds.semidefinite.matrices import Matrices, matrices
from onelip.chains import Chain, Shape
from onelip.errors import NotApplicableError, UsageError
from onelip.norms.rounding import asked_once
from onelip.reading import read, read_program

Network = nn.Module | ExportedProgram | Chain


def chain_of(network: Network, input_shape: Shape | None = None) -> Chain:
    """Read a network as a chain.

    Args:
        network: a module in eval mode, an exported program, or a chain.
        input_shape: of one input, without the batch; programs and chains know their own.

    Raises:
        UsageError: a module without the shape of its input.
        UnboundedModuleError: a part of the network cannot be read.
    """
    if isinstance(network, Chain):
        return network
    if isinstance(network, ExportedProgram):
        return read_program(network)
    if input_shape is None:
        raise UsageError("the shape of one input is needed: bound(model, (3, 32, 32))")
    return read(network, input_shape)


class Outcome(NamedTuple):
    """Proved bound of a method, and what more time would give.

    Attributes:
        bound: 0-d float64.
        more: what more time would give; empty where it would give nothing.
    """

    bound: Tensor
    more: str = ""


class Shared:
    """Results that methods on one chain hand on to those that come after them.

    Attributes:
        chain: the chain.
        multipliers: the best that were found, at the scale of ``matrices``; None for none.
        level: the squared constant of the scaled chain that they are said to prove.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.multipliers: list[Multipliers] | None = None
        self.level = torch.tensor(math.inf, dtype=torch.float64)
        self._matrices: Matrices | None = None

    def matrices(self) -> Matrices:
        """Chain written out as scaled matrices, once."""
        if self._matrices is None:
            self._matrices = matrices(self.chain)
        return self._matrices

    def offer(self, multipliers: list[Multipliers], level: Tensor) -> None:
        """Keep multipliers if they seem to prove less than those that are known."""
        if level < self.level:
            self.multipliers, self.level = multipliers, level


@dataclass(frozen=True)
class BoundMethod(abc.ABC):
    """Method to bound the Lipschitz constant of a network, by proof.

    A method is a frozen dataclass that defines ``name`` and ``prove``; a line in
    ``onelip.bounds.METHODS`` makes it known to ``Best``, certificates, recipes and training.
    Everything else has a default that is valid for any proved constant.
    """

    share: ClassVar[float] = 1.0
    """Share of the time left that ``Best`` gives the method."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name of the method in ``METHODS``, on the command line and in records."""

    @property
    def title(self) -> str:
        """Name as papers print it."""
        return self.name

    @abc.abstractmethod
    def prove(self, chain: Chain) -> Tensor:
        """Proved Lipschitz constant of a chain, a 0-d float64 tensor on the CPU.

        Raises:
            NotApplicableError: the method does not cover the chain, or does not end in its time.
            NonFiniteError: a weight is infinite or NaN.
        """

    @torch.no_grad()
    @asked_once()
    def bound(self, network: Network, input_shape: Shape | None = None) -> Tensor:
        """Proved Lipschitz constant of a network.

        Args:
            network: a module in eval mode, an exported program, or a chain.
            input_shape: of one input, without the batch; programs and chains know their own.

        Returns:
            A 0-d float64 tensor on the CPU.

        Raises:
            NotApplicableError: the method does not cover the network, or does not end in its time.
            UnboundedModuleError: a part of the network has no proved bound.
            NonFiniteError: a weight is infinite or NaN.
            UsageError: a module without the shape of its input.
        """
        return self.prove(chain_of(network, input_shape))

    @torch.no_grad()
    @asked_once()
    def logit_bounds(self, network: Network, input_shape: Shape | None = None) -> LogitBounds:
        r"""Proved constants of a network, of each logit and of each difference of two logits.

        Bound: L for each logit and :math:`\sqrt 2 L` for each pair, with the constant L of the
            network; the constants of the product of norms where they are smaller.

        Args:
            network: as for ``bound``.
            input_shape: as for ``bound``.
        """
        chain = chain_of(network, input_shape)
        product = logits_by_blocks(chain, DEFAULT_WORK, math.inf)
        return limited(product, self.prove(chain))

    def outcome(self, shared: Shared) -> Outcome:
        """Prove a bound of ``shared.chain``, and say what more time would give.

        Args:
            shared: what earlier methods found out; what this one finds may be left there.
        """
        return Outcome(self.prove(shared.chain))

    def multiplications(self, chain: Chain) -> float:  # noqa: ARG002
        """Estimate the multiplications before the method has anything to show, for ``Best``.

        Infinite for a method that ``Best`` does not try.
        """
        return 0.0

    def within(self, seconds: float) -> Self:  # noqa: ARG002
        """Return the same method as ``Best`` runs it when so many seconds are left."""
        return self

    def shared(self, networks: int) -> Self:  # noqa: ARG002
        """Return the same method for one of so many networks that share its seconds."""
        return self

    def estimate(self, chain: Chain) -> nn.Module:  # noqa: ARG002
        """Return a differentiable estimate, for training: called with a chain of the same shapes.

        Returns:
            A module from chains to ``(classes, classes)``; it must not reach a certificate.

        Raises:
            NotApplicableError: there is none.
        """
        raise NotApplicableError(
            f"nothing estimates {self.title} in training: take the constants 'product' or 'liplt'"
        )


def end_of(seconds: float | None) -> float:
    """Return the seconds, infinity where none are given."""
    return math.inf if seconds is None else seconds


def widths(chain: Chain) -> list[int]:
    """Return the sizes of the input and of the output of each inner map."""
    if not chain.blocks:
        return []
    return [chain.blocks[0].inner.columns, *(block.inner.rows for block in chain.blocks)]


def limited(found: LogitBounds, network: Tensor) -> LogitBounds:
    """Combine constants of logits with another proved constant of the same network."""
    bounds = tightened(torch.minimum(network, found.network), found.per_class, found.pairwise, ())
    return least([found._replace(layers=()), bounds])._replace(layers=found.layers)
