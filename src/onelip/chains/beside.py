r"""Networks side by side: one chain that applies several to several images of one input.

The mean of :math:`f_m(T_n x)` over M networks and N transforms is a chain of the same length: a
map that spreads the input, the layers of all copies side by side, and a map that takes the mean.
The spread has the norm :math:`\sqrt{MN}` if each transform takes every number once, the mean
:math:`1 / \sqrt{MN}`, and maps side by side the largest of their norms.

Copies of images (channels, height, width) are groups of channels, in the order of networks and then
of transforms, and convolutions have groups. Copies of vectors of n numbers are images (M n, 1, N):
a matrix is a convolution of one pixel, whose weight stands once for all transforms.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains.chain import (
    Block,
    Chain,
    Elementwise,
    GroupSorting,
    Nonlinearity,
    Opaque,
)
from onelip.chains.linear_layers import average, divided, reshaped, taking
from onelip.chains.linear_map import (
    Adjoint,
    Composition,
    Convolution,
    Dense,
    GroupMean,
    LinearMap,
    Reshape,
    Scale,
    Shape,
    Sum,
    Taking,
    composed,
    identity,
)
from onelip.chains.value import Value

_CHANNELWISE = (nn.MaxPool2d,)
"""Modules that treat each channel alike and by itself, beside elementwise ones."""


class _Unlike(Exception):  # noqa: N818  # no error of a caller's: the chain is not written then
    """Parts that are not alike, or that cannot be written side by side."""


def index_of(linear: LinearMap) -> Tensor | None:
    """Place from which a map takes each number, -1 for zeros; None for one that does more."""
    index = torch.arange(linear.columns)
    for part in linear.maps if isinstance(linear, Composition) else (linear,):
        if isinstance(part, Taking):
            taken = part.index.cpu()
            index = torch.where(taken >= 0, index[taken.clamp_min(0)], -1)
        elif not isinstance(part, Reshape):
            return None
    return index


def averaged_chain(chains: Sequence[Chain], moves: Sequence[Tensor], like: Tensor) -> Chain | None:
    """The mean of chains over moves of their input, as a chain.

    Args:
        chains: networks.
        moves: for each transform, the place from which it takes each number; -1 for zeros.
        like: a tensor with the dtype and the device of the networks.

    Returns:
        None where the networks are not alike, layer by layer, or a layer has no such form.
    """
    first, copies = chains[0], _Copies(len(chains), len(moves))
    try:
        if any(_outline(chain) != _outline(first) for chain in chains):
            raise _Unlike
        start = Value.entering(first.inputs, like)
        value = start.then(copies.spread(first.inputs, moves, like.device))
        same = zip(*(chain.blocks for chain in chains), strict=True)
        blocks = tuple(copies.block(list(alike)) for alike in same)
        lasts, heads = _heads([chain.last for chain in chains])
        value = value.through(Chain(blocks, copies.map(lasts)))
        return copies.mean(value, lasts[0].outputs, heads).chain()
    except _Unlike:
        return None


def _outline(chain: Chain) -> tuple[Shape, Shape, int]:
    return chain.inputs, chain.outputs, len(chain.blocks)


def _heads(lasts: list[LinearMap]) -> tuple[list[LinearMap], list[Dense]]:
    """The matrices at the end of several networks, and the maps before; no matrices for one."""
    ends = [last.maps[-1] if isinstance(last, Composition) else last for last in lasts]
    heads = [end for end in ends if isinstance(end, Dense)]
    if len(lasts) == 1 or len(heads) < len(lasts):
        return lasts, []
    before = [list(last.maps[:-1]) if isinstance(last, Composition) else [] for last in lasts]
    return [
        composed(maps) if maps else identity(head.inputs)
        for maps, head in zip(before, heads, strict=True)
    ], heads


class _Copies:
    """Maps and blocks of some networks, each applied to the same number of images."""

    def __init__(self, networks: int, transforms: int) -> None:
        self.networks, self.transforms = networks, transforms
        self._known: dict[tuple[bool, tuple[int, ...]], LinearMap] = {}  # blocks share maps

    @property
    def count(self) -> int:
        return self.networks * self.transforms

    def shape(self, shape: Shape) -> Shape:
        """Shape of all copies of images or vectors."""
        if len(shape) == 3:
            return (self.count * shape[0], *shape[1:])
        if len(shape) == 1:
            return (self.networks * shape[0], 1, self.transforms)
        raise _Unlike

    def places(self, shape: Shape) -> Tensor:
        """Number of each entry, in their order, if all copies are written one after the other."""
        size = torch.Size(shape).numel()
        numbers = torch.arange(self.count * size)
        if len(shape) == 3:
            return numbers
        if len(shape) == 1:
            return numbers.view(self.networks, self.transforms, size).mT.flatten()
        raise _Unlike

    def spread(self, shape: Shape, moves: Sequence[Tensor], device: torch.device) -> LinearMap:
        """The map from an input to its transforms, for each network."""
        size = torch.Size(shape).numel()
        if any(len(move) != size for move in moves):
            raise _Unlike
        every = torch.cat(list(moves) * self.networks)
        return taking(shape, self.shape(shape), every[self.places(shape)].to(device))

    def moved(self, inputs: Shape, outputs: Shape, index: Sequence[Tensor]) -> LinearMap:
        """The map that takes numbers of each copy by their place in it, for each network."""
        size = torch.Size(inputs).numel()
        back = self.places(inputs).argsort()
        shifted = []
        for copy in range(self.count):
            taken = index[copy // self.transforms].cpu()
            there = back[(taken + copy * size).clamp_min(0)]
            shifted.append(torch.where(taken >= 0, there, -1))
        every = torch.cat(shifted)[self.places(outputs)]
        device = index[0].device
        return taking(self.shape(inputs), self.shape(outputs), every.to(device))

    def block(self, blocks: list[Block]) -> Block:
        """Blocks that are alike, side by side; in residual ones, convolutions have one group."""
        first = blocks[0]
        joined = first.skip is not None
        constants = [block.constant for block in blocks if block.constant is not None]
        return Block(
            self.map([block.inner for block in blocks], joined),
            self.nonlinearity([b.nonlinearity for b in blocks], first.inner.outputs),
            self._maybe([block.outer for block in blocks], joined),
            self._maybe([block.skip for block in blocks], joined),
            max(constants) if len(constants) == len(blocks) else None,
            first.name,
        )

    def nonlinearity(self, kinds: list[Nonlinearity], inputs: Shape) -> Nonlinearity:
        """Nonlinearities that are alike, and have no numbers but slopes of channels."""
        first, modules = kinds[0], [kind.module for kind in kinds]
        if all(type(module) is nn.PReLU for module in modules):
            return self._elementwise(kinds, self._with_slopes(modules, inputs), inputs)
        module = modules[0]
        numbers = any([*m.parameters(), *m.buffers()] for m in modules)
        numbers |= any(isinstance(n, Tensor) for m in modules for n in vars(m).values())
        if numbers or any(_settings(m) != _settings(module) for m in modules):
            raise _Unlike
        if isinstance(first, Elementwise):
            return self._elementwise(kinds, module, inputs)
        constant = max(kind.constant for kind in kinds)
        if isinstance(first, GroupSorting):
            return replace(first, constant=constant)
        if isinstance(first, Opaque) and type(module) in _CHANNELWISE and len(inputs) == 3:
            return Opaque(module, constant, self.shape(first.shape))
        raise _Unlike

    def _elementwise(
        self, kinds: Sequence[Nonlinearity], module: nn.Module, inputs: Shape
    ) -> Elementwise:
        low, high = (
            self.entries([getattr(kind, name) for kind in kinds], inputs)
            for name in ("low", "high")
        )
        return Elementwise(module, low, high)

    def _with_slopes(self, modules: Sequence[Any], inputs: Shape) -> nn.PReLU:
        """One slope for each channel of all copies."""
        slopes = [module.weight.detach().expand(inputs[0]) for module in modules]
        weight = self._biases(list(slopes), inputs)
        assert weight is not None
        joined = nn.PReLU(len(weight), device="meta")
        joined.weight = nn.Parameter(weight, requires_grad=False)
        return joined.eval()

    def map(self, maps: list[LinearMap], joined: bool = False) -> LinearMap:
        """Maps that are alike, side by side; with ``joined``, convolutions have one group."""
        key = joined, tuple(map(id, maps))
        if key not in self._known:
            self._known[key] = self._map(maps, joined)
        return self._known[key]

    def _maybe(self, maps: Sequence[LinearMap | None], joined: bool) -> LinearMap | None:
        kept = [linear for linear in maps if linear is not None]
        if kept and len(kept) < len(maps):
            raise _Unlike
        return self.map(kept, joined) if kept else None

    def _map(self, maps: list[LinearMap], joined: bool) -> LinearMap:
        first, kind = maps[0], type(maps[0])
        for linear in maps:
            if type(linear) is not kind or (linear.inputs, linear.outputs) != (
                first.inputs,
                first.outputs,
            ):
                raise _Unlike
        if isinstance(first, Reshape):
            index = torch.arange(first.columns)
            same = len(first.inputs) == len(first.outputs)
            if same and first.inputs == first.outputs:
                return identity(self.shape(first.inputs))
            return self.moved(first.inputs, first.outputs, [index] * self.networks)
        if isinstance(first, Taking):
            return self.moved(first.inputs, first.outputs, [part.index for part in maps])  # type: ignore[attr-defined]
        if isinstance(first, Composition) or kind is Sum:
            parts = [linear.maps for linear in maps]  # type: ignore[attr-defined]
            if any(len(part) != len(parts[0]) for part in parts):
                raise _Unlike
            alike = [self.map(list(some), joined) for some in zip(*parts, strict=True)]
            return composed(alike) if isinstance(first, Composition) else Sum(tuple(alike))
        if isinstance(first, GroupMean):
            return replace(first, inputs=self.shape(first.inputs))
        return self._weighted(maps, joined)

    def _weighted(self, maps: list[LinearMap], joined: bool) -> LinearMap:
        """Maps with numbers of their own."""
        first: Any = maps[0]
        every: list[Any] = list(maps)
        if isinstance(first, Scale):
            factor = self.entries([part.factor for part in every], first.inputs)
            shift = self._shifts([part.shift for part in every], first.inputs)
            operations = max(part.operations for part in every)
            return Scale(self.shape(first.inputs), factor, shift, operations)
        if isinstance(first, Adjoint):
            of = self.map([part.of for part in every], joined)
            return Adjoint(of, self._biases([part.bias for part in every], first.outputs))
        if isinstance(first, Dense):
            weight = self._taps([part.weight[:, :, None, None] for part in every], joined)
            bias = self._biases([part.bias for part in every], first.outputs)
            groups = 1 if joined else self.networks
            return Convolution(self.shape(first.inputs), weight, bias, groups=groups)
        if not isinstance(first, Convolution):
            raise _Unlike
        joined &= first.groups == 1
        if len({_geometry(part) for part in every}) > 1:
            raise _Unlike
        weights = [part.weight for part in every for _ in range(self.transforms)]
        return replace(
            first,
            inputs=self.shape(first.inputs),
            weight=self._taps(weights, joined),
            bias=self._biases([part.bias for part in every], first.outputs),
            groups=1 if joined else self.count * first.groups,
        )

    @staticmethod
    def _taps(weights: list[Tensor], joined: bool) -> Tensor:
        """Kernels as those of groups, or of one group with zeros between."""
        if not joined or len(weights) == 1:
            return torch.cat(weights)
        rows, columns = weights[0].shape[:2]
        whole = weights[0].new_zeros(
            len(weights) * rows, len(weights) * columns, *weights[0].shape[2:]
        )
        for at, weight in enumerate(weights):
            whole[at * rows : (at + 1) * rows, at * columns : (at + 1) * columns] = weight
        return whole

    def entries(self, numbers: list[Tensor], shape: Shape) -> Tensor:
        """Numbers that broadcast onto each copy, as those that broadcast onto all."""
        first = numbers[0]
        if all(n.numel() == 1 and torch.equal(n.flatten(), first.flatten()) for n in numbers):
            return first.reshape(())
        if len(shape) == 1:
            return torch.cat([n.expand(shape) for n in numbers])[:, None, None]
        if len(shape) != 3:
            raise _Unlike
        images = [n.reshape((1,) * (3 - n.ndim) + n.shape) for n in numbers]
        images = [n.expand(shape[0], *n.shape[1:]) for n in images]
        if any(n.shape != images[0].shape for n in images):
            images = [n.expand(shape) for n in images]
        return torch.cat([n for n in images for _ in range(self.transforms)])

    def _shifts(self, shifts: list[Tensor | None], shape: Shape) -> Tensor | None:
        kept = [shift for shift in shifts if shift is not None]
        if kept and len(kept) < len(shifts):
            raise _Unlike
        return self.entries(kept, shape) if kept else None

    def _biases(self, biases: list[Tensor | None], shape: Shape) -> Tensor | None:
        """One number for each channel of all copies."""
        kept = [bias for bias in biases if bias is not None]
        if kept and len(kept) < len(biases):
            raise _Unlike
        repeats = self.transforms if len(shape) == 3 else 1
        return torch.cat([bias for bias in kept for _ in range(repeats)]) if kept else None

    def mean(self, value: Value, shape: Shape, heads: list[Dense]) -> Value:
        """The mean of all copies, of what matrices make of them if there are some."""
        like = value.point.like
        if len(shape) == 3:
            weight = torch.eye(shape[0]).to(like).repeat(1, self.count)[:, :, None, None]
            value = value.then(Convolution(value.shape, weight))
            return divided(value, torch.tensor(float(self.count), dtype=torch.float64))
        if self.transforms > 1:
            window = 1, self.transforms
            value = average(value, window, window, (0, 0))
        value = reshaped(value, (self.networks * shape[0],))
        if self.networks == 1:
            return value
        value = divided(value, torch.tensor(float(self.networks), dtype=torch.float64))
        if not heads:
            return value.then(Dense(torch.eye(shape[0]).to(like).repeat(1, self.networks)))
        weight = torch.cat([head.weight for head in heads], 1)
        biases = [head.bias.double() for head in heads if head.bias is not None]
        bias = torch.stack(biases).sum(0) / self.networks if biases else None
        return value.then(Dense(weight, None if bias is None else bias.to(weight)))


def _settings(module: nn.Module) -> tuple[object, ...]:
    """Class and arguments of a module without numbers."""
    public = {k: v for k, v in vars(module).items() if k[0] != "_" and k != "training"}
    return type(module), repr(module), public


def _geometry(linear: Convolution) -> tuple[object, ...]:
    return (
        linear.weight.shape,
        linear.stride,
        linear.padding,
        linear.dilation,
        linear.groups,
        linear.circular,
    )
