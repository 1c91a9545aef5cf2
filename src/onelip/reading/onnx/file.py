"""ONNX files of networks."""

from collections.abc import Callable, Mapping, Sequence
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
from onelip.reading.graphs.graph import Node, Reference, needed, walked
from onelip.reading.graphs.refusals import Unfinished
from onelip.reading.onnx.attributes import Attributes
from onelip.reading.onnx.frame import BatchError, Frame
from onelip.reading.onnx.operators import OPERATORS, REASONS, TAKES_UNFINISHED
from onelip.reading.onnx.shapes import SHAPES

Sizes = Mapping[str, int]
Fixed = Mapping[str, Any]
_OWN = ("", "ai.onnx")


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
        output: name of the tensor that the chain ends with, if not of the only output.
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
            constants = _constants(graph)
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
        return _nodes(self.graph, self.version, frame, dtype)

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
    versions = [entry.version for entry in model.opset_import if entry.domain in _OWN]
    if not versions:
        raise UsageError(f"{path} cannot be read as an ONNX file: it names no operators")
    return model.graph, versions[0]


def _constants(graph: Any) -> dict[str, Tensor]:
    constants = {part.name: _tensor(part) for part in graph.initializer}
    for part in graph.sparse_initializer:
        values, places = _tensor(part.values), _tensor(part.indices).long()
        dense = torch.zeros(list(part.dims), dtype=values.dtype)
        if places.ndim == 1:
            dense.view(-1)[places] = values
        else:
            dense[tuple(places.T)] = values
        constants[part.values.name] = dense
    return constants


def _tensor(proto: Any) -> Tensor:
    """A constant; what torch has no dtype for, such as bfloat16 here, fits into float32."""
    from onnx import numpy_helper

    array = numpy_helper.to_array(proto)
    try:
        return torch.from_numpy(array.copy())
    except TypeError:
        return torch.from_numpy(array.astype("float32"))


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


def _nodes(graph: Any, version: int, frame: Frame, dtype: torch.dtype) -> list[Node]:
    return [_node(node, version, frame, dtype) for node in graph.node]


def _node(proto: Any, version: int, frame: Frame, dtype: torch.dtype) -> Node:
    name = proto.name or next(iter(proto.output), "")
    inputs = [Reference(part) for part in proto.input]
    if proto.op_type == "If" and proto.domain in _OWN:
        captured = sorted({n for part in proto.attribute for n in _captured(part.g)})
        branches = {part.name: part.g for part in proto.attribute}
        choose = _chosen_branch(branches, captured, version, frame, dtype)
        inputs += [Reference(part) for part in captured]
        return Node(name, "If", tuple(inputs), tuple(proto.output), choose, choose)
    operator = OPERATORS.get(proto.op_type) if proto.domain in _OWN else None
    compute = _computed(proto, version)
    operation = _refused(proto)
    if operator is not None:
        operation = _called(operator, proto, compute, version=version, frame=frame, dtype=dtype)
    return Node(name, proto.op_type, tuple(inputs), tuple(proto.output), operation, compute)


def _refused(proto: Any) -> Callable[..., Any]:
    """What is said of an operator without a rule."""
    reason = REASONS.get(proto.op_type, "no Lipschitz bound is known: there is no rule for it")
    if proto.domain not in _OWN:
        reason = f"no Lipschitz bound is known of operators of {proto.domain!r}"

    def refuse(*_: Any) -> Any:
        raise UnboundedModuleError(
            f"{proto.op_type} {reason}" if proto.op_type in REASONS else reason
        )

    return refuse


def _captured(graph: Any) -> set[str]:
    """Names that a graph inside takes from around it."""
    made = {part.name for part in (*graph.initializer, *graph.input)}
    made |= {name for node in graph.node for name in node.output}
    used = {name for node in graph.node for name in node.input if name}
    used |= {entry.name for entry in graph.output}
    for node in graph.node:
        for part in node.attribute:
            used |= _captured(part.g) if part.HasField("g") else set()
    return used - made


def _chosen_branch(
    branches: Mapping[str, Any],
    captured: Sequence[str],
    version: int,
    frame: Frame,
    dtype: torch.dtype,
) -> Callable[..., Any]:
    """The results of the branch that a constant chooses."""

    def choose(condition: Any, *values: Any) -> Any:
        if not isinstance(condition, Tensor):
            raise UnboundedModuleError("a branch that depends on the input jumps: no constant")
        graph = branches["then_branch" if bool(condition) else "else_branch"]
        known = {**dict(zip(captured, values, strict=True)), **_constants(graph), "": None}
        results = walked(_nodes(graph, version, frame, dtype), known)
        found = [results[entry.name] for entry in graph.output]
        return found if len(found) > 1 else found[0]

    return choose


def _attribute(part: Any) -> Any:
    from onnx import AttributeProto, helper

    value = helper.get_attribute_value(part)
    if part.type == AttributeProto.TENSOR:
        return _tensor(value)
    return value.decode() if isinstance(value, bytes) else value


def _called(
    operator: Callable[..., Any],
    proto: Any,
    compute: Callable[..., Any],
    *,
    version: int,
    frame: Frame,
    dtype: torch.dtype,
) -> Callable[..., Any]:
    """The operator, given its attributes and then its inputs, in the network's dtype."""

    def prepared(part: Any) -> Any:
        if isinstance(part, Unfinished) and proto.op_type not in TAKES_UNFINISHED:
            return part.settled()
        if not isinstance(part, Tensor) or not part.is_floating_point():
            return part
        converted = part.to(dtype)
        fits = torch.equal(converted.double(), part.double())
        return converted if fits else part

    def call(*inputs: Any) -> Any:
        given = {part.name: _attribute(part) for part in proto.attribute}
        attributes = Attributes(proto.op_type, given, frame, version, compute)
        parts = [prepared(part) for part in inputs]
        if proto.op_type in SHAPES:
            result = operator(attributes, *parts)
        else:
            result = _with_an_axis(operator, attributes, parts)
        results = result if isinstance(result, list) else [result]
        if frame.batch is not None and any(isinstance(r, Value) and not r.shape for r in results):
            raise BatchError("leaves each input of the batch a single number")
        return results[0] if len(proto.output) == 1 else result

    return call


def _with_an_axis(
    operator: Callable[..., Any], attributes: Attributes, parts: Sequence[Any]
) -> Any:
    """An operator that moves no axes, on vectors of one number instead of single numbers."""
    alone = not any(len(part.shape) for part in parts if isinstance(part, (Value, Tensor)))
    single = [isinstance(part, Value) and not part.shape for part in parts]
    pairs = zip(parts, single, strict=True)
    result = operator(
        attributes, *(linear.reshaped(part, (1,)) if is_one else part for part, is_one in pairs)
    )
    if alone and isinstance(result, Value) and result.shape == (1,):
        return linear.reshaped(result, ())
    return result


def _computed(proto: Any, opset: int) -> Callable[..., Any]:
    """The operator on constants, as the package of the format defines it."""

    def compute(*inputs: Any) -> Any:
        import numpy as np
        from onnx import helper
        from onnx.reference import ReferenceEvaluator

        names = [name for name in proto.input if name]
        given = [part.detach().numpy() for part in inputs if part is not None]
        entries = {
            name: helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(part.dtype), part.shape
            )
            for name, part in zip(names, given, strict=True)
        }
        outputs = [helper.make_empty_tensor_value_info(name) for name in proto.output if name]
        graph = helper.make_graph([proto], "constant", list(entries.values()), outputs)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        results = iter(ReferenceEvaluator(model).run(None, dict(zip(names, given, strict=True))))
        tensors = [
            torch.tensor(np.array(next(results), order="C")) if name else None
            for name in proto.output
        ]
        return tensors if len(proto.output) > 1 else tensors[0]

    return compute
