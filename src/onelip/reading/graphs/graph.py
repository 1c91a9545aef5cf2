"""A network as a list of nodes, whatever file it came in, walked through to its chain.

What a node returns is a ``Value`` if it depends on the input, and otherwise a constant, which is
computed as the file says. Constants are those of a batch of one.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onelip.chains import Chain, Shape
from onelip.chains.value import Value
from onelip.errors import OnelipError, UnboundedModuleError, UsageError
from onelip.reading.graphs.refusals import Unfinished, settled


@dataclass(frozen=True)
class Reference:
    """The result of another node, by name."""

    name: str


@dataclass(frozen=True)
class Node:
    """One operation.

    Attributes:
        name: as the file has it.
        kind: the operation, as the file calls it.
        inputs: constants, and references to results, in lists or not.
        outputs: the names of what it returns.
        operation: how it is applied to values; None where nothing is known about it.
        compute: how it is computed on constants.
        origin: path and class of the module that it was traced from, as the file claims.
    """

    name: str
    kind: str
    inputs: tuple[Any, ...]
    outputs: tuple[str, ...]
    operation: Callable[..., Any] | None
    compute: Callable[..., Any]
    origin: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as nodes between one input and one output.

    Attributes:
        nodes: in the order of their computation.
        constants: numbers that do not depend on the input, by name.
        entry: name of the input.
        shape: of one input, without the batch.
        like: an empty tensor with the dtype and the device of the input.
        output: name of the output.
    """

    nodes: Sequence[Node]
    constants: Mapping[str, Any]
    entry: str
    shape: Shape
    like: Tensor
    output: str

    def after(self, value: Value) -> Value:
        """The network after a value.

        Raises:
            UnboundedModuleError: nothing is proved for a node; the message names it.
            UsageError: a node is used in a way that is not known, or nothing depends on the input.
        """
        known = {**self.constants, self.entry: value}
        result = walked(needed(self.nodes, self.output), known).get(self.output)
        try:
            result = settled(result)
        except OnelipError as error:
            raise type(error)(f"node {self.output!r}: {error}") from error
        if not isinstance(result, Value):
            raise UsageError(f"the output {self.output!r} does not depend on the input")
        return result

    def chain(self) -> Chain:
        """The network as a chain."""
        return self.after(Value.entering(self.shape, self.like)).chain()


def walked(nodes: Sequence[Node], known: Mapping[str, Any]) -> dict[str, Any]:
    """All results of nodes, by name, with what was known before."""
    results = dict(known)
    for node in nodes:
        results.update(zip(node.outputs, _results(node, results), strict=False))
    return results


def _results(node: Node, results: Mapping[str, Any]) -> Sequence[Any]:
    """Result of a node."""
    name = f"node {node.name!r} ({node.kind})"
    try:
        inputs = [_resolved(part, results) for part in node.inputs]
        if not any(map(_depends, inputs)):
            computed = node.compute(*inputs)
            return computed if len(node.outputs) > 1 else [computed]
        if node.operation is None:
            raise UnboundedModuleError("no Lipschitz bound is known")
        result = node.operation(*inputs)
    except OnelipError as error:
        raise type(error)(f"{name}: {error}") from error
    except Exception as error:  # operators of files raise whatever they like
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{name} is used in a way that cannot be read: {reason}") from error
    if isinstance(result, list) and len(node.outputs) > 1:
        return result
    return [result.named(node.name) if isinstance(result, Value) else result]


def needed(nodes: Sequence[Node], output: str, known: Collection[str] = ()) -> list[Node]:
    """The nodes on which the output depends, in order; those before what is known are left out."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs).difference(known):
            kept.append(node)
            wanted.update(names(node.inputs))
    return kept[::-1]


def names(part: Any) -> list[str]:
    """Names of the results that inputs refer to."""
    if isinstance(part, Reference):
        return [part.name]
    return [name for inner in part for name in names(inner)] if is_list(part) else []


def _resolved(part: Any, results: Mapping[str, Any]) -> Any:
    if isinstance(part, Reference):
        if part.name not in results:
            raise UsageError(f"{part.name!r} is not computed before")
        return results[part.name]
    return [_resolved(inner, results) for inner in part] if is_list(part) else part


def _depends(part: Any) -> bool:
    return any(map(_depends, part)) if is_list(part) else isinstance(part, (Value, Unfinished))


def is_list(part: Any) -> bool:
    """Whether inputs stand in a list, such as those of a concatenation."""
    return isinstance(part, (list, tuple)) and not isinstance(part, torch.Size)
