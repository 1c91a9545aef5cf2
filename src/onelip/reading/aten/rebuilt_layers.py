"""Layers that no operator tells apart, recognised in an exported program by building them again.

A program says of each node which module it was traced from, and under which name its tensors were
stored. That is only a hint. The layer is built from those tensors, traced again, and what it
computes is compared with the nodes of the file: the same operators in the same order, on the same
numbers. Where all are equal, the file computes what the layer computes, and the layer's own proof
holds for it. Everything else is read operator by operator.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onelip.chains import Shape
from onelip.chains.value import Value
from onelip.layers import CurvePool2d, FixedFourierConv2d, Householder, ProjectionPool2d
from onelip.lipschitz import read_module
from onelip.reading.graphs.graph import Graph, Node, Reference, is_list, names, needed, walked

Build = Callable[[Mapping[str, Tensor], Shape], nn.Module]
Trace = Callable[[nn.Module, Tensor], Graph]
"""Trace of a module on an example."""


def _householder(stored: Mapping[str, Tensor], _: Shape) -> nn.Module:
    angles, pairs = stored["theta"].shape
    return Householder(2 * pairs, order=(angles + 1) // 2)


def _curve_pool(stored: Mapping[str, Tensor], _: Shape) -> nn.Module:
    corners, _two, pairs = stored["corners"].shape
    return CurvePool2d(2 * pairs, corners)


def _projection_pool(stored: Mapping[str, Tensor], _: Shape) -> nn.Module:
    return ProjectionPool2d(2 * len(stored["theta"]))


def _fourier(stored: Mapping[str, Tensor], shape: Shape) -> nn.Module:
    frequencies, numbers, _two = stored["spectrum"].shape
    channels, height, width = shape
    for stride in range(1, height + 1):  # the number of frequencies falls with the stride
        columns = channels * stride**2
        if height // stride * (width // stride // 2 + 1) == frequencies and not numbers % columns:
            half = (height // stride, width // stride // 2 + 1, numbers // columns, columns)
            blocks = torch.zeros(half, dtype=torch.cfloat)
            size = (height, width)
            return FixedFourierConv2d(blocks, stored.get("bias"), image_size=size, stride=stride)
    raise ValueError(f"no convolution of {shape} has {frequencies} frequencies")


BUILDERS: dict[str, Build] = {
    "Householder": _householder,
    "HouseHolder": _householder,  # files that were written before the layer was renamed
    "CurvePool2d": _curve_pool,
    "ProjectionPool2d": _projection_pool,
    "FixedFourierConv2d": _fourier,
}
"""Builder of a layer from what a file stored for it, and the shape of its input."""


def is_rebuilt(origin: tuple[str, str] | None) -> bool:
    """Return whether a module, by its path and class, claims to be a layer that is built again."""
    return origin is not None and origin[1].rpartition(".")[2] in BUILDERS


def grouped(graph: Graph, targets: Mapping[str, str], trace: Trace) -> list[Node]:
    """Nodes on which the output depends, those of one layer in one node where that is possible.

    Args:
        graph: of an exported program.
        targets: where constants were stored, by name.
        trace: how a layer is traced again.
    """
    output = graph.output
    kept = needed(graph.nodes, output)
    sizes = {node.name for node in kept if _is_batch_size(node, graph.entry)}
    layers: dict[str, list[Node]] = {}
    for node in kept:
        if node.origin and is_rebuilt(node.origin) and node.name not in sizes:
            layers.setdefault(node.origin[0], []).append(node)
    single: dict[str, Node] = {}
    inside: set[str] = set()
    for path, members in layers.items():
        own = {node.name for node in members}
        others = [name for node in kept if node.name not in own for name in names(node.inputs)]
        if own.intersection((*others, output)) != {members[-1].name}:
            continue  # something else uses a number of the layer's own
        prefix = f"{path}." if path else ""
        stored = {
            name: target.removeprefix(prefix)
            for name, target in targets.items()
            if target.startswith(prefix)
        }
        single[members[-1].name] = _layer(members, graph.constants, stored, sizes, trace)
        inside |= own
    return [single.get(n.name, n) for n in kept if n.name in single or n.name not in inside]


def _layer(
    members: list[Node],
    known: Mapping[str, Any],
    stored: Mapping[str, str],
    sizes: set[str],
    trace: Trace,
) -> Node:
    """One node for those of a layer, whose tensors have names of their own."""
    last, own = members[-1], {node.name for node in members}
    outside = [name for node in members for name in names(node.inputs) if name not in own]
    outside = list(dict.fromkeys(outside))
    kind = last.origin[1].rpartition(".")[2] if last.origin else ""

    def operation(*inputs: Any) -> Any:
        given = dict(zip(outside, inputs, strict=True))
        values = [name for name, part in given.items() if isinstance(part, Value)]
        if len(values) == 1:
            value: Value = given[values[0]]
            tensors = {stored[name]: part for name, part in given.items() if name in stored}
            module = _built(kind, tensors, value)
            if module is not None:
                example = value.point.like.new_zeros(2 if sizes else 1, *value.shape)
                if _same(members, given, values[0], sizes, trace(module, example)):
                    return read_module(module, value)
        return walked(members, {**known, **given})[last.name]

    inputs = tuple(map(Reference, outside))
    return Node(last.name, kind, inputs, last.outputs, operation, operation, last.origin)


def _built(kind: str, stored: Mapping[str, Tensor], value: Value) -> nn.Module | None:
    try:
        module = BUILDERS[kind](stored, value.shape)
        state = {name: tensor.detach() for name, tensor in stored.items()}
        like = next(iter(state.values()))
        module = module.to(like.device, like.dtype).eval()
        module.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, LookupError, StopIteration):
        return None
    return module


def _is_batch_size(node: Node, entry: str) -> bool:
    """Batch size of the network's input, the only one that may be dynamic."""
    return node.kind == "aten.sym_size.int" and node.inputs == (Reference(entry), 0)


def _same(
    found: Sequence[Node],
    given: Mapping[str, Any],
    entry: str,
    sizes: set[str],
    twin: Graph,
) -> bool:
    """Whether the nodes of a file compute, one by one, what those of the twin do."""
    start, end = twin.entry, twin.output
    nodes = needed(twin.nodes, end)
    twin_sizes = {node.name for node in nodes if _is_batch_size(node, start)}
    nodes = [node for node in nodes if node.name not in twin_sizes]
    partner = {start: entry}

    def alike(theirs: Any, ours: Any) -> bool:
        if is_list(theirs) and is_list(ours):
            return len(theirs) == len(ours) and all(map(alike, theirs, ours))
        if isinstance(theirs, Reference) and isinstance(ours, Reference):
            if ours.name in partner:
                return partner[ours.name] == theirs.name
            if ours.name in twin_sizes:
                return theirs.name in sizes
            first, second = given.get(theirs.name), twin.constants.get(ours.name)
            return (
                isinstance(first, Tensor)
                and isinstance(second, Tensor)
                and first.dtype == second.dtype
                and torch.equal(first, second)
            )
        return type(theirs) is type(ours) and bool(theirs == ours)

    for node, other in itertools.zip_longest(found, nodes):
        if node is None or other is None or node.kind != other.kind:
            return False
        if not alike(node.inputs, other.inputs):
            return False
        partner[other.name] = node.name
    return partner.get(end) == found[-1].name
