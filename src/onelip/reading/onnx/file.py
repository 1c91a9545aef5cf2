"""ONNX files of networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onelip.chains import Chain
from onelip.chains import linear_layers as linear
from onelip.chains.value import Value
from onelip.errors import OnelipError, UnboundedModuleError, UsageError, missing_extra
from onelip.norms.proved_once import proved_once
from onelip.reading.graphs.frame import BatchError, Frame
from onelip.reading.graphs.graph import Node, Reference, needed, walked
from onelip.reading.graphs.refusals import Unfinished
from onelip.reading.onnx.nodes import OWN, constants_of, nodes_of

Sizes = Mapping[str, int]
Fixed = Mapping[str, Any]


@proved_once()
def read_onnx(
    path: str | Path,
    *,
    input: str | None = None,
    output: str | None = None,
    shapes: Sizes | None = None,
    fixed: Fixed | None = None,
) -> Chain:
    """The network of an ONNX file as a chain.

    Sequences, and residual blocks ``x + f(x)``; see ``read_program``. Of an f with several hidden
    layers, the layers in the middle are one nonlinearity with the product of their bounds. Weights
    in half precision are read exactly; that the file rounds what is between its layers is no part
    of the function.

    The first axis is the batch, and the chain is the network of one input, if the file treats all
    alike and apart. If not, the whole tensor is one input: a chain for a batch of one leaves out
    the first axis where its size is 1.

    Cost: next to none; the norms of residual branches with several hidden layers.

    Args:
        path: of the file.
        input: name of the tensor that the chain starts from, if not of the only input: one of
            several, or one inside, such as what an embedding returns. An input of whole numbers is
            taken from the table in which they are looked up.
        output: name of the tensor that the chain ends with, if not of the only output; of the two
            outputs ``logits`` and ``radius`` it is the first.
        shapes: sizes of dimensions that the file leaves open, by the names that it gives them;
            ``"x.2"`` is dimension 2 of the input x if it gives none.
        fixed: arrays for the other inputs, by name; a number fills all of an input.

    Raises:
        UnboundedModuleError: nothing is proved for an operator; the message names the node.
        UsageError: the file is missing or cannot be read, or does not say what is asked above; or
            onnx is not installed.
    """
    path = Path(path)
    try:
        return _chosen(path, input=input, output=output, shapes=shapes, fixed=fixed)
    except OnelipError:
        raise
    except Exception as error:  # of a file whose parts do not fit together
        raise _unreadable(path, error) from error


def _chosen(
    path: Path, *, input: str | None, output: str | None, shapes: Sizes | None, fixed: Fixed | None
) -> Chain:
    file = _File.loaded(path, dict(shapes or {}))
    target = file.chosen_output(output)
    given = {name: file.filled(name, value) for name, value in (fixed or {}).items()}
    start = file.chosen_input(input, target, given)
    entry = file.entry(start, given)
    batch = entry.shape[0] if entry.ndim > 1 else None
    known = {**file.constants, **given, "": None}
    if batch is not None:
        try:
            return _read(file, Frame(batch), known, start=start, entry=entry, target=target)
        except BatchError:
            pass
    return _read(file, Frame(None), known, start=start, entry=entry, target=target)


def _read(
    file: "_File", frame: Frame, known: Mapping[str, Any], *, start: str, entry: Tensor, target: str
) -> Chain:
    alone = frame.batch is None and entry.ndim > 1 and len(entry) == 1
    left_out = frame.batch is not None or alone
    shape = tuple(entry.shape[left_out:])
    value = Value.entering(shape or (1,), entry.new_empty(()))
    value = linear.reshaped(value, tuple(entry.shape) if alone else shape)
    nodes = needed(file.nodes(frame, entry.dtype), target, {*known, start})
    result = walked(nodes, {**known, start: value}).get(target)
    if isinstance(result, Unfinished):
        try:
            result = result.settled()
        except UnboundedModuleError as error:
            raise UnboundedModuleError(f"output {target!r}: {error}") from error
    if not isinstance(result, Value):
        raise UsageError(f"the output {target!r} does not depend on the input {start!r}")
    first = alone and len(result.shape) > 1 and result.shape[0] == 1
    return linear.reshaped(result, result.shape[first:] or (1,)).chain()


@dataclass(frozen=True)
class _File:
    """A file's graph.

    Attributes:
        path: of the file.
        graph: as the package of the format has it.
        version: of the operators.
        constants: by name.
        sizes: of open dimensions.
    """

    path: Path
    graph: Any
    version: int
    constants: dict[str, Tensor]
    sizes: Sizes

    @classmethod
    def loaded(cls, path: Path, sizes: Sizes) -> "_File":
        """Open a file."""
        graph, version = _loaded(path)
        try:
            constants = constants_of(graph)
        except Exception as error:
            raise _unreadable(path, error) from error
        file = cls(path, graph, version, constants, sizes)
        twice = _defined_twice(graph)
        if twice is not None:
            raise UsageError(f"{path} cannot be read as an ONNX file: it defines {twice!r} twice")
        names = {side for entry in file.inputs.values() for side in _sides(entry)}
        unknown = sorted(set(sizes) - {name for name in names if isinstance(name, str)})
        if unknown:
            known = ", ".join(sorted(n for n in names if isinstance(n, str))) or "none"
            raise UsageError(f"{path} has no open dimension {unknown[0]!r}; it has {known}")
        if any(int(size) < 1 for size in sizes.values()):
            raise UsageError(f"sizes of dimensions are at least 1, got {dict(sizes)}")
        return file

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs that have to be given, by name."""
        return {e.name: e for e in self.graph.input if e.name not in self.constants}

    def nodes(self, frame: Frame, dtype: torch.dtype) -> list[Node]:
        """The operations, in the order of their computation."""
        return nodes_of(self.graph, self.version, frame, dtype)

    def chosen_output(self, name: str | None) -> str:
        """The tensor that the network ends with.

        Raises:
            UsageError: there is none of this name, or several to choose from.
        """
        outputs = [entry.name for entry in self.graph.output]
        inside = {part for node in self.graph.node for part in node.output if part}
        if name is not None:
            if name not in inside and name not in outputs:
                raise UsageError(f"{self.path} has no output {name!r}; it has {_listed(outputs)}")
            return name
        if sorted(outputs) == ["logits", "radius"]:  # as onelip.save writes them
            return "logits"
        if len(outputs) != 1:
            raise UsageError(
                f"{self.path} has {len(outputs)} outputs: choose with output=, or --output, one of "
                f"{_listed(outputs)}"
            )
        return str(outputs[0])

    def chosen_input(self, name: str | None, target: str, given: Mapping[str, Any]) -> str:
        """The tensor that the network starts from.

        Raises:
            UsageError: there is none of this name, or other inputs are not fixed.
        """
        nodes = self.nodes(Frame(None), torch.float64)
        inside = {part for node in nodes for part in node.outputs if part}
        if name is not None and name not in self.inputs and name not in inside:
            raise UsageError(f"{self.path} has no input {name!r}; it has {_listed(self.inputs)}")
        known = {*given, *self.constants} | ({name} if name else set())
        asked = _leaves(needed(nodes, target, known), known, target)
        missing = sorted(asked.difference(self.inputs))
        if missing:
            raise UsageError(f"{self.path}: {missing[0]!r} is not computed before it is used")
        free = [entry for entry in self.inputs if entry in asked]
        if name is None:
            if len(free) > 1:
                raise UsageError(
                    f"{self.path} has {len(free)} inputs, {_listed(free)}: choose one with input=, "
                    "or --input, and fix the others"
                )
            if not free:
                raise UsageError(f"the output {target!r} does not depend on the input")
            name = free[0]
        elif free:
            raise UsageError(
                f"the output needs {_listed(free)} besides {name!r}: fix the other inputs to arrays"
            )
        if name in self.inputs and not _is_real(self.inputs[name]):
            return self._embedding(name, target, given)
        return name

    def _embedding(self, name: str, target: str, given: Mapping[str, Any]) -> str:
        """What the table returns in which an input of whole numbers is looked up."""
        nodes = needed(self.nodes(Frame(None), torch.float64), target, set(given))
        derived, found = {name}, []
        for node in nodes:
            parts = [part.name for part in node.inputs if isinstance(part, Reference)]
            if not derived.intersection(parts):
                continue
            table = self.constants.get(parts[0]) if parts else None
            if node.kind == "Gather" and table is not None and table.is_floating_point():
                found.append(node.outputs[0])
            else:
                derived.update(node.outputs)
        if len(found) == 1:
            return found[0]
        inside = [node.outputs[0] for node in nodes if node.outputs and node.outputs[0] in derived]
        raise UsageError(
            f"input {name!r} holds whole numbers, which have no Lipschitz constant: choose what "
            f"the network makes of them with input=, or --input, such as {_listed(inside[:8])}"
        )

    def entry(self, name: str, given: Mapping[str, Any]) -> Tensor:
        """An empty tensor of the shape and type of the chosen input.

        That of a tensor inside is what the file computes from zeros.
        """
        if name in self.inputs:
            entry = self.inputs[name]
            if not _is_real(entry):
                raise UsageError(f"input {name!r} must hold floating-point numbers")
            return torch.empty(self.shape(entry), dtype=_wide(entry.type.tensor_type.elem_type))
        nodes = self.nodes(Frame(None), torch.float64)
        known: dict[str, Any] = {**self.constants, **given, "": None}
        before = needed(nodes, name, set(known))
        asked = _leaves(before, set(known), name)
        zeros = {part: self.filled(part, 0) for part in self.inputs if part in asked}
        result = walked(before, {**known, **zeros}).get(name)
        if not isinstance(result, Tensor) or not result.is_floating_point():
            raise UsageError(f"{name!r} must hold floating-point numbers to start from")
        wide = torch.float64 if result.dtype == torch.float64 else torch.float32
        return torch.empty(result.shape, dtype=wide)

    def filled(self, name: str, value: Any) -> Tensor:
        """A fixed input, with the type that the file says.

        Raises:
            UsageError: the file has no such input, or one of another shape.
        """
        if name not in self.inputs:
            raise UsageError(f"{self.path} has no input {name!r}; it has {_listed(self.inputs)}")
        dtype = _stored(self.inputs[name].type.tensor_type.elem_type)
        array = torch.as_tensor(value)
        if array.ndim == 0:
            return torch.full(self.shape(self.inputs[name]), array.item(), dtype=dtype)
        sides = _sides(self.inputs[name])
        fits = len(sides) == array.ndim and all(
            isinstance(side, str) or side == size
            for side, size in zip(sides, array.shape, strict=True)
        )
        if not fits:
            raise UsageError(
                f"input {name!r} cannot be fixed to an array of shape {tuple(array.shape)}: the "
                f"file wants {sides}"
            )
        return array.to(dtype)

    def shape(self, entry: Any) -> tuple[int, ...]:
        """Shape of an input; a batch whose size is open is one of 1, wherever its name stands.

        Raises:
            UsageError: another dimension is open.
        """
        if not entry.type.tensor_type.HasField("shape"):
            raise UsageError(f"input {entry.name!r}: the file does not say its shape")
        batches = {next(iter(_sides(other)), None) for other in self.inputs.values()}
        sides = []
        for place, side in enumerate(_sides(entry)):
            open_one = 1 if place == 0 or side in batches else 0
            size = side if isinstance(side, int) else self.sizes.get(side, open_one)
            if size < 1:
                raise UsageError(
                    f"input {entry.name!r}: only the batch may be dynamic; say the size of "
                    f"dimension {place} with shapes={{{side!r}: ...}}, or --shape {side}=..."
                )
            sides.append(int(size))
        return tuple(sides)


def _leaves(nodes: Sequence[Node], known: set[str], target: str) -> set[str]:
    """Names that nodes refer to, none of which they compute, or the target itself."""
    made = {part for node in nodes for part in node.outputs}
    used = {part.name for node in nodes for part in node.inputs if isinstance(part, Reference)}
    return ({*used, target} - made - {""}) - known


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names) or "none"


def _defined_twice(graph: Any) -> str | None:
    """A name that two nodes, or a node and a constant or an input, define."""
    made = {part.name for part in (*graph.initializer, *graph.input)}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in made:
                return str(name)
            made.add(name)
    return None


def _unreadable(path: Path, error: Exception) -> UsageError:
    reason = str(error).strip().partition("\n")[0]
    return UsageError(f"{path} cannot be read as an ONNX file: {reason}")


def _loaded(path: Path) -> tuple[Any, int]:
    """The graph, with its own functions written out, and the version of its operators."""
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        raise missing_extra("onnx", "onnx") from error
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    try:
        model = onnx.load(path)
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
    except Exception as error:
        raise _unreadable(path, error) from error
    versions = [entry.version for entry in model.opset_import if entry.domain in OWN]
    if not versions:
        raise UsageError(f"{path} cannot be read as an ONNX file: it names no operators")
    return model.graph, versions[0]


def _sides(entry: Any) -> list[int | str]:
    """Sizes of the dimensions, and names of those that are open."""
    return [
        side.dim_value if side.dim_value > 0 else side.dim_param or f"{entry.name}.{place}"
        for place, side in enumerate(entry.type.tensor_type.shape.dim)
    ]


def _is_real(entry: Any) -> bool:
    from onnx import TensorProto

    kinds = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return entry.type.tensor_type.elem_type in kinds


def _wide(kind: int) -> torch.dtype:
    """The dtype of a network's numbers: half precision fits into float32."""
    from onnx import TensorProto

    return torch.float64 if kind == TensorProto.DOUBLE else torch.float32


def _stored(kind: int) -> torch.dtype:
    """The dtype of a tensor of the file."""
    import numpy as np
    from onnx import helper

    try:
        return torch.from_numpy(np.zeros(0, dtype=helper.tensor_dtype_to_np_dtype(kind))).dtype
    except (TypeError, KeyError) as error:
        raise UsageError("an input of this type cannot be fixed") from error
