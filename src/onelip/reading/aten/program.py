"""Programs that ``torch.export`` makes of a model."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument

from onelip.chains import Chain, Shape
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading.aten.archive import checked_archive
from onelip.reading.aten.batch_size import (
    counting,
    refuse_batch_as_number,
    without_batch_as_number,
)
from onelip.reading.aten.operators import OPERATORS, TAKES_UNFINISHED
from onelip.reading.aten.parts import part_node
from onelip.reading.aten.rebuilt_layers import grouped, is_rebuilt
from onelip.reading.graphs.graph import Graph, Node, Reference
from onelip.reading.graphs.refusals import on_settled, only_locally

_NOTHING: Mapping[str, Reference] = MappingProxyType({})
_REGIONS = {"wrap_with_autocast": 4, "wrap_with_set_grad_enabled": 1}
"""Operators that compute a graph of their own, and which argument it is."""
_STORED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


def read_program(source: str | Path | ExportedProgram, *, trust: bool = False) -> Chain:
    """An exported program, or a ``.pt2`` file of one, as a chain.

    The program is that of the forward pass itself, whatever the model's classes: sequences, and
    residual blocks ``x + f(x)``. An f with one hidden layer becomes a block; of an f with more, the
    layers in the middle are one nonlinearity with the product of their bounds.

    Cost: next to none; the norms of residual branches with several hidden layers.

    Args:
        source: of ``torch.export.export(model.eval(), (example,))``, with a batch of one or a
            dynamic batch; or the path to which ``torch.export.save`` wrote it.
        trust: open the file as ``torch.export.load`` does, which may run code that it holds.

    Raises:
        UnboundedModuleError: nothing is proved for an operator; the message names the node.
        UsageError: the file is missing or cannot be read, or the program does not take one input
            and return one output for it.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> chain = read_program(torch.export.export(net.eval(), (torch.zeros(1, 4),)))
        >>> chain.inputs, len(chain.blocks), chain.outputs
        ((4,), 1, (2,))
    """
    if not isinstance(source, ExportedProgram):
        source = read_archive(Path(source), trust=trust)
    return program_graph(source).chain()


def program_graph(program: ExportedProgram) -> Graph:
    """Nodes of an exported program, with layers that no operator tells apart in one node each.

    Raises:
        UsageError: the program does not take one input and return one output for it.
    """
    program = _functional(program)
    graph = _ungrouped(program)
    return replace(graph, nodes=grouped(graph, _targets(program), _traced))


def _ungrouped(program: ExportedProgram) -> Graph:
    """Nodes of an exported program, one for each operator."""
    program = _functional(program)
    name, shape, dtype = _input(program)
    constants, output = _constants(program), _output(program)
    _refuse_moved_batch(program)
    nodes = program_nodes(program.graph_module)
    return Graph(nodes, constants, name, shape, torch.empty((), dtype=dtype), output)


def _traced(module: nn.Module, example: Tensor) -> Graph:
    """Trace a module, with a dynamic batch for one above 1."""
    dynamic = ({0: torch.export.Dim("batch")},) if len(example) > 1 else None
    return _ungrouped(torch.export.export(module, (example,), dynamic_shapes=dynamic))


def read_archive(path: Path, *, trust: bool = False) -> ExportedProgram:
    """Read the program of a ``.pt2`` file; see ``read_program``."""
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    archive = path if trust else checked_archive(path)
    try:
        program: ExportedProgram = torch.export.load(archive)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"{path} cannot be read as a program that torch.export.save wrote: {reason}"
        ) from error
    return program


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Program without in-place operators, which would change values that are still in use."""
    targets = [node.target for node in program.graph.nodes]
    if any(isinstance(t, OpOverload) and t._schema.is_mutable for t in targets):
        program = program.run_decompositions({})
    return program


def _input(program: ExportedProgram) -> tuple[str, Shape, torch.dtype]:
    """Name, shape without the batch and dtype of the one input."""
    specs = program.graph_signature.input_specs
    names = [spec.arg.name for spec in specs if spec.kind is InputKind.USER_INPUT]
    if len(names) != 1:
        raise UsageError(f"a network of one input can be read, this one has {len(names)}")
    example = next(n.meta.get("val") for n in program.graph.nodes if n.name == names[0])
    if not isinstance(example, Tensor) or not example.is_floating_point() or example.ndim < 2:
        raise UsageError("the input must be a batch of floating-point numbers")
    batch, *shape = example.shape
    if not all(isinstance(side, int) for side in shape):
        raise UsageError(f"only the batch may be dynamic, got inputs of shape {tuple(shape)}")
    if isinstance(batch, int) and batch != 1:
        raise UsageError(f"exported for a batch of {batch}: export for one of 1, or dynamic")
    return names[0], tuple(shape), example.dtype


def _refuse_moved_batch(program: ExportedProgram) -> None:
    """Refuse nodes whose first axis is not the batch, where that has a size of its own.

    Raises:
        UnboundedModuleError: a node moves the batch or mixes its samples; the message names it.
    """
    entries = program.graph_signature.user_inputs
    example = next(node.meta["val"] for node in program.graph.nodes if node.name in entries)
    batch = example.shape[0]
    if not isinstance(batch, torch.SymInt):
        return
    if any("scaled_dot_product" in str(node.target) for node in program.graph.nodes):
        raise only_locally("attention, a product of values that depend on the input,")
    for module in program.graph_module.modules():  # regions are graphs of their own
        if isinstance(module, torch.fx.GraphModule):
            _check_batch(module.graph, str(batch))


def _check_batch(graph: torch.fx.Graph, batch: str) -> None:
    """Refuse nodes between an input with a batch and the output that have none in front."""
    reached: set[str] = set()
    asked = _before_output(graph)
    for node in graph.nodes:
        value = node.meta.get("val")
        sides = [str(side) for side in value.shape] if isinstance(value, Tensor) else None
        if node.op == "placeholder":
            depends = sides is not None and sides[:1] == [batch]
        else:
            depends = any(before.name in reached for before in node.all_input_nodes)
        if not depends or isinstance(value, torch.SymInt):  # a size says nothing of the numbers
            continue
        reached.add(node.name)
        own = is_rebuilt(_origin(node))  # checked as a whole, or operator by operator
        if sides is not None and sides[:1] != [batch] and node.name in asked and not own:
            what = "moves the batch to another axis" if batch in sides else "mixes the samples"
            raise UnboundedModuleError(
                f"node {node.name!r} ({node.target}) {what}: its result has the shape "
                f"({', '.join(sides)}), and {batch} is the size of the batch"
            )


def _before_output(graph: torch.fx.Graph) -> set[str]:
    """Names of the nodes that the output depends on."""
    asked: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node.name in asked:
            asked.update(before.name for before in node.all_input_nodes)
    return asked


def _constants(program: ExportedProgram) -> dict[str, Tensor]:
    stored = {**program.constants, **program.state_dict}
    constants = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind in _STORED and isinstance(spec.arg, TensorArgument):
            constants[spec.arg.name] = stored[str(spec.target)]
    return constants


def _targets(program: ExportedProgram) -> dict[str, str]:
    """Targets of parameters and buffers, by the names of their placeholders."""
    specs = program.graph_signature.input_specs
    return {spec.arg.name: str(spec.target) for spec in specs if spec.kind in _STORED}


def _output(program: ExportedProgram) -> str:
    specs = program.graph_signature.output_specs
    if any(spec.kind is not OutputKind.USER_OUTPUT for spec in specs):
        raise UsageError("the program changes its buffers: model.eval() before the export")
    if names_of_outputs(program) == ["logits", "radius"]:  # as onelip.save writes them
        specs = specs[:1]
    if len(specs) != 1 or not isinstance(specs[0].arg, TensorArgument):
        raise UsageError(f"a network of one output can be read, this one has {len(specs)}")
    return specs[0].arg.name


def names_of_outputs(program: ExportedProgram) -> list[str]:
    """Names of the outputs, of a program that returns a dictionary."""
    tree = program.call_spec.out_spec
    return [str(name) for name in tree.context] if tree is not None and tree.type is dict else []


def program_nodes(
    module: Any, prefix: str = "", given: Mapping[str, Reference] = _NOTHING
) -> list[Node]:
    """The operations of a graph, those of regions in their places.

    Args:
        module: torch's, with the graph.
        prefix: before the names of the results.
        given: what placeholders stand for.
    """
    nodes = []
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        if str(node.target) in _REGIONS:
            nodes += _inlined(module, node, prefix, given)
        else:
            nodes.append(_node(node, prefix, given))
    return nodes


def _inlined(module: Any, node: Any, prefix: str, given: Mapping[str, Reference]) -> list[Node]:
    """The nodes of the region, and one that returns its results."""
    place = _REGIONS[str(node.target)]
    region, operands = node.args[place], node.args[place + 1 :]
    if str(node.target) == "wrap_with_autocast" and node.args[2]:
        raise UnboundedModuleError(f"node {node.name!r} computes under autocast: turn it off")
    inner, within = getattr(module, region.target), f"{prefix}{node.name}."
    places = [part.name for part in inner.graph.nodes if part.op == "placeholder"]
    stands = dict(zip(places, _referred(operands, prefix, given), strict=True))
    outputs = next(part.args[0] for part in inner.graph.nodes if part.op == "output")
    results = _referred(outputs, within, stands)
    plain = Node(
        f"{prefix}{node.name}",
        "region",
        (results,),
        (f"{prefix}{node.name}",),
        lambda parts: parts,
        lambda parts: parts,
        _origin(node),
    )
    return [*program_nodes(inner, within, stands), plain]


def _origin(node: Any) -> tuple[str, str] | None:
    """Path and class of the innermost module."""
    stack = node.meta.get("nn_module_stack") or {}
    return tuple(list(stack.values())[-1]) if stack else None


def _node(node: Any, prefix: str, given: Mapping[str, Reference]) -> Node:
    target = node.target
    if target is torch.ops.onelip.part.default:
        value, key = _referred(node.args, prefix, given)
        return part_node(f"{prefix}{node.name}", value, key)
    if isinstance(target, OpOverload):
        inputs, compute = _by_schema(node, target)
    else:
        inputs, compute = tuple(node.args), target
    kind = str(target)
    operation = operator.getitem if target is operator.getitem else None
    if kind.startswith("aten.") and isinstance(target, OpOverload):
        known = OPERATORS.get(kind.removeprefix("aten."))
        if known is not None and kind.split(".")[1] not in TAKES_UNFINISHED:
            known = on_settled(known)
        operation = without_batch_as_number(target, known)
    if isinstance(node.meta.get("val"), torch.SymInt | torch.SymFloat):
        compute, operation = counting(compute), operation and counting(operation)
    referred = tuple(_referred(inputs, prefix, given))
    name = f"{prefix}{node.name}"
    return Node(name, kind, referred, (name,), operation, compute, _origin(node))


def _by_schema(node: Any, target: OpOverload) -> tuple[tuple[Any, ...], Callable[..., Any]]:
    """All arguments in the order of the schema, and the operator on them."""
    arguments = target._schema.arguments
    given = dict(zip((a.name for a in arguments), node.args, strict=False)) | node.kwargs
    named = [a.name for a in arguments if a.kwarg_only]
    inputs = tuple(given.get(a.name, a.default_value) for a in arguments)

    def compute(*values: Any) -> Any:
        refuse_batch_as_number(arguments, values)
        plain = values[: len(values) - len(named)]
        return target(*plain, **dict(zip(named, values[len(plain) :], strict=True)))

    return inputs, compute


def _referred(part: Any, prefix: str, given: Mapping[str, Reference]) -> Any:
    if isinstance(part, torch.fx.Node):
        return given.get(part.name, Reference(f"{prefix}{part.name}"))
    if isinstance(part, (list, tuple)):
        return [_referred(inner, prefix, given) for inner in part]
    return part
