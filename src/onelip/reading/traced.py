"""Modules of any class, exported programs and ONNX files, as layers that prove their bound."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from onelip.chains import Chain, Shape
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.lipschitz import LipschitzModule, has_unknown_class, unwrapped
from onelip.reading.aten.program import program_graph
from onelip.reading.aten.trace import trace
from onelip.reading.graphs.branches import Ways
from onelip.reading.graphs.graph import Graph


class Traced(LipschitzModule):
    """A network that is known as a graph of operators, for inputs of one shape.

    Bound: the product of the bounds of the operators along the graph; as a chain, whatever a bound
        method finds.
    Shape: ``(batch, *graph.shape)``.

    Args:
        graph: of the network.
        run: computes the same numbers.
        numbers: its weights, which say in what dtype and where it runs.
        source: modules whose rules the graph asks; they must live as long.
    """

    def __init__(
        self,
        graph: Graph,
        run: Callable[[Tensor], Tensor],
        numbers: list[Tensor],
        source: object = None,
    ) -> None:
        super().__init__()
        self.graph, self.run, self.source = graph, run, (source,)  # no submodule
        self.title = "the program" if source is None else type(source).__name__
        for place, number in enumerate(numbers):
            self.register_buffer(f"number{place}", number.detach(), persistent=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        return self.run(x)

    def chain(self) -> Chain:
        """The network as a chain."""
        return self.graph.chain()

    @torch.no_grad()
    def lipschitz_bound(self) -> Tensor:
        """Product of the bounds of the operators."""
        return torch.tensor(Ways(self.chain()).bound(), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Read the graph after a value.

        Raises:
            UsageError: the value has another shape than the inputs of the graph.
        """
        if value.shape != self.graph.shape:
            raise UsageError(f"takes inputs of shape {self.graph.shape}, got {value.shape}")
        return self.graph.after(value)


def traced_module(model: nn.Module, input_shape: Shape) -> Traced:
    """Trace a module by ``torch.export``; see ``trace``."""
    return traced_program(trace(model, input_shape), source=model)


def traced_program(program: ExportedProgram, *, source: object = None) -> Traced:
    """Make an exported program a layer that runs it."""
    graph = program_graph(program)
    numbers = [n for n in program.state_dict.values() if isinstance(n, Tensor)]
    return Traced(graph, _running(program), numbers, source)


def _running(program: ExportedProgram) -> Callable[[Tensor], Tensor]:
    """Return a function that runs a program; one for a batch of 1, on a sample at a time."""
    run = program.module().__call__  # the module itself would be a part, and has hooks
    (example,) = (
        node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs
    )
    if isinstance(example.meta["val"].shape[0], torch.SymInt):
        return run
    return lambda x: torch.cat([run(one) for one in x.split(1)]) if len(x) else run(x)


def readable(model: nn.Module | ExportedProgram, input_shape: Shape | None) -> nn.Module:
    """Return a module all of whose parts prove their bound: itself, unwrapped, or traced.

    A module is traced if a part of it is of a class that nothing is known of.

    Args:
        model: any module, or an exported program.
        input_shape: of one input, without the batch; None where there is no shape to trace for.

    Raises:
        UnboundedModuleError: its forward cannot be traced; the message names the line.
        UsageError: it is in training mode.
    """
    if isinstance(model, ExportedProgram):
        return traced_program(model)
    model = unwrapped(model)
    if input_shape is None or not has_unknown_class(model):
        return model
    return traced_module(model, input_shape)
