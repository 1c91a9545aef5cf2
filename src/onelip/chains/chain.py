r"""A network as a chain of blocks, the form that Lipschitz bounds of whole networks work on.

A block is :math:`x \mapsto H x + G \phi(W x)`: ``skip`` H, ``outer`` G, ``inner`` W. A plain layer
has neither skip nor outer. The chain ends in a linear map (equation 17 of Fazlyab et al., 2023).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from onelip.activations import slopes
from onelip.chains.linear_map import (
    GroupMean,
    LinearMap,
    Scale,
    Shape,
    Sum,
    composed,
    identity,
    norm_of_parts,
)
from onelip.norms.rounding import product


class Split(NamedTuple):
    r"""A nonlinearity as :math:`\phi = C + A \psi B`, with :math:`\psi` 1-Lipschitz from 0 to 0.

    ``after`` A and ``before`` B and ``centre`` C are linear; there may be no centre.
    """

    centre: LinearMap | None
    before: LinearMap
    after: LinearMap


@dataclass(frozen=True)
class Elementwise:
    """An activation whose slopes lie in ``[low, high]``: a number, or one per entry."""

    module: nn.Module
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, module: nn.Module) -> "Elementwise":
        """One of torch's activations, with its slopes.

        Raises:
            UnboundedModuleError: nothing is known about it.
        """
        low, high = slopes(module)
        return cls(
            module, torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64)
        )

    def outputs(self, shape: Shape) -> Shape:
        """Shape of the outputs, that of the inputs."""
        return shape

    @property
    def constant(self) -> float:
        """The Lipschitz constant."""
        return float(torch.maximum(self.low.abs(), self.high.abs()).max())

    def split(self, shape: Shape) -> Split:
        """Loop transformation: the middle of the slopes, and half their width (rounded up)."""
        middle = (self.low + self.high) / 2
        half = torch.maximum(self.high - middle, middle - self.low)
        half = torch.where(half > 0, torch.nextafter(half, half.new_tensor(math.inf)), half)
        if half.ndim == 0 or bool((half == half.flatten()[0]).all()):
            return Split(Scale(shape, middle), identity(shape), Scale(shape, half.flatten()[0]))
        root = half.sqrt()  # rounded to nearest: two steps up cover it
        for _ in range(2):
            root = torch.where(root > 0, torch.nextafter(root, root.new_tensor(math.inf)), root)
        return Split(Scale(shape, middle), Scale(shape, root), Scale(shape, root))


@dataclass(frozen=True)
class GroupSorting:
    """Sorts groups of neighbouring channels: the means stay, the rest is permuted."""

    module: nn.Module
    size: int
    constant: float = 1.0

    def outputs(self, shape: Shape) -> Shape:
        """Shape of the outputs, that of the inputs."""
        return shape

    def split(self, shape: Shape) -> Split:
        """The mean of each group passes unchanged; sorting the remainder is 1-Lipschitz."""
        rest = GroupMean(shape, self.size, remainder=True)
        return Split(GroupMean(shape, self.size), rest, rest)


@dataclass(frozen=True)
class Opaque:
    """Any map of which nothing but a proved Lipschitz constant is known."""

    module: nn.Module
    constant: float
    shape: Shape

    def outputs(self, shape: Shape) -> Shape:  # noqa: ARG002
        """Shape of the module's output."""
        return self.shape

    def split(self, shape: Shape) -> Split:
        """No centre."""
        constant = torch.tensor(self.constant, dtype=torch.float64)
        return Split(None, identity(shape), Scale(self.shape, constant))


Nonlinearity = Elementwise | GroupSorting | Opaque


@dataclass(frozen=True)
class Block:
    """``skip(x) + outer(nonlinearity(inner(x)))``.

    Attributes:
        inner: the linear map in front of the nonlinearity.
        nonlinearity: what happens to its output.
        outer: the linear map after it, None for none.
        skip: the linear map around all, None for none.
        constant: a proved Lipschitz constant of the whole block, if one is known otherwise.
        name: of the layers, for messages and tables.
    """

    inner: LinearMap
    nonlinearity: Nonlinearity
    outer: LinearMap | None = None
    skip: LinearMap | None = None
    constant: float | None = None
    name: str = ""

    @property
    def inputs(self) -> Shape:
        """Shape of what the block takes."""
        return self.inner.inputs

    @property
    def hidden(self) -> Shape:
        """Shape after the nonlinearity."""
        return self.nonlinearity.outputs(self.inner.outputs)

    @property
    def outputs(self) -> Shape:
        """Shape of what the block returns."""
        return self.hidden if self.outer is None else self.outer.outputs

    def after(self, maps: Sequence[LinearMap]) -> "Block":
        """The block after linear maps, whose norms its constant takes in."""
        inner = composed([*maps, self.inner])
        skip = None if self.skip is None else composed([*maps, self.skip])
        constant = None
        if self.constant is not None:
            own = torch.tensor(self.constant, dtype=torch.float64)
            constant = float(product([own, *map(norm_of_parts, maps)]))
        return replace(self, inner=inner, skip=skip, constant=constant)

    def forward(self, x: Tensor) -> Tensor:
        """The block, biases included."""
        y: Tensor = self.nonlinearity.module(self.inner.affine(x))
        y = y if self.outer is None else self.outer.affine(y)
        return y if self.skip is None else y + self.skip.affine(x)


@dataclass(frozen=True)
class Chain:
    """Blocks, and a linear map after them."""

    blocks: tuple[Block, ...]
    last: LinearMap

    @property
    def inputs(self) -> Shape:
        """Shape of what the network takes."""
        return self.blocks[0].inputs if self.blocks else self.last.inputs

    @property
    def outputs(self) -> Shape:
        """Shape of what the network returns."""
        return self.last.outputs

    @property
    def plain(self) -> bool:
        """Whether every block is a layer ``nonlinearity(inner(x))``."""
        return all(block.skip is None and block.outer is None for block in self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """The network itself, biases included, in the arithmetic of its tensors."""
        for block in self.blocks:
            x = block.forward(x)
        return self.last.affine(x)

    def exact(self) -> "Chain":
        """Chain with maps and parameters of activations in float64 on the CPU."""
        blocks = tuple(
            Block(
                block.inner.exact(),
                replace(block.nonlinearity, module=_doubled(block.nonlinearity.module)),
                None if block.outer is None else block.outer.exact(),
                None if block.skip is None else block.skip.exact(),
                block.constant,
                block.name,
            )
            for block in self.blocks
        )
        return Chain(blocks, self.last.exact())


def transformed(block: Block) -> tuple[LinearMap | None, LinearMap, LinearMap]:
    r"""The block after loop transformation, as :math:`\hat H x + \hat G \psi(\hat W x)`.

    Returns:
        H (None for 0), G and W, with a 1-Lipschitz :math:`\psi`: Lemma 3.1 of Fazlyab et al.
    """
    split = block.nonlinearity.split(block.inner.outputs)
    outer = identity(block.hidden) if block.outer is None else block.outer
    parts = [] if block.skip is None else [block.skip]
    if split.centre is not None:
        parts.append(composed([block.inner, split.centre, outer]))
    around = None if not parts else parts[0] if len(parts) == 1 else Sum(tuple(parts))
    return around, composed([split.after, outer]), composed([block.inner, split.before])


def _doubled(module: nn.Module) -> nn.Module:
    """The module, or a copy in float64 if it holds numbers."""
    if not [*module.parameters(), *module.buffers()]:
        return module
    return copy.deepcopy(module).cpu().double()
