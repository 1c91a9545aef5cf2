"""Modules of any class, exported programs and ONNX files, as layers that prove their bound."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from onelip.chains import Chain, Shape
from onelip.chains.value import Value
from onelip.errors import UsageError
from onelip.lipschitz import LipschitzModule, has_unknown_class, unwrapped
from onelip.reading.aten.program import names_of_outputs, program_graph, read_archive
from onelip.reading.aten.trace import trace
from onelip.reading.graphs.branches import Ways
from onelip.reading.onnx.file import read_onnx
from onelip.reading.onnx.runtime import onnx_runner
from onelip.reading.suffixes import suffix_of

Predictor = nn.Module | ExportedProgram | str | Path
"""What predicts: a module, or a program or file with the runtime that it is made for."""


class Traced(LipschitzModule):
    """A network that runs somewhere else and is known as a chain, for inputs of one shape.

    Bound: the product of the bounds along the chain; of the chain, what a bound method proves.
    Shape: ``(batch, *chain.inputs)``.

    Args:
        chain: of the network.
        run: computes it.
        numbers: its weights, which say in what dtype and where it runs.
        source: what the chain's rules ask, and has to live as long: a module, or a path.
    """

    def __init__(
        self,
        chain: Chain,
        run: Callable[[Tensor], Tensor],
        numbers: list[Tensor],
        source: object = None,
    ) -> None:
        super().__init__()
        self.chain, self.run, self.source = chain, run, (source,)  # no submodules
        named = isinstance(source, nn.Module)
        self.title = type(source).__name__ if named else str(source or "the program")
        for place, number in enumerate(numbers):
            self.register_buffer(f"number{place}", number.detach(), persistent=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Run the network."""
        return self.run(x)

    @torch.no_grad()
    def lipschitz_bound(self) -> Tensor:
        """Product of the bounds along the chain."""
        return torch.tensor(Ways(self.chain).bound(), dtype=torch.float64)

    def to_chain(self, value: Value) -> Value:
        """Put the chain after a value.

        Raises:
            UsageError: the value has another shape than the inputs of the chain.
        """
        if value.shape != self.chain.inputs:
            raise UsageError(f"takes inputs of shape {self.chain.inputs}, got {value.shape}")
        return value.through(self.chain)


def traced_module(model: nn.Module, input_shape: Shape) -> Traced:
    """Trace a module by ``torch.export``; see ``trace``."""
    return traced_program(trace(model, input_shape), source=model)


def traced_program(program: ExportedProgram, *, source: object = None) -> Traced:
    """Make an exported program a layer that runs it."""
    chain = program_graph(program).chain()
    numbers = [n for n in program.state_dict.values() if isinstance(n, Tensor)]
    return Traced(chain, _running(program), numbers, source)


def traced_file(path: str | Path) -> Traced:
    """Make a ``.pt2`` or an ``.onnx`` file a layer that runs it, an ONNX file in onnxruntime.

    Raises:
        UsageError: the file cannot be read or run, or onnxruntime is not installed.
        UnboundedModuleError: nothing is proved for a part.
    """
    path = Path(path)
    if suffix_of(path, (".pt2", ".onnx")) == ".pt2":
        return traced_program(read_archive(path), source=path)
    chain = read_onnx(path)
    run, dtype = onnx_runner(path)
    return Traced(chain, run, [torch.zeros((), dtype=dtype)], path)


def _running(program: ExportedProgram) -> Callable[[Tensor], Tensor]:
    """Return a function that runs a program; one for a batch of 1, on a sample at a time."""
    call: Any = program.module().__call__  # the module itself would be a part, and has hooks
    run = call if not names_of_outputs(program) else lambda x: call(x)["logits"]
    (example,) = (
        node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs
    )
    if isinstance(example.meta["val"].shape[0], torch.SymInt):
        return run
    return lambda x: torch.cat([run(one) for one in x.split(1)]) if len(x) else run(x)


def readable(model: Predictor, input_shape: Shape | None) -> nn.Module:
    """Return a module all of whose parts prove their bound: itself, unwrapped, or traced.

    A module is traced if a part of it is of a class that nothing is known of.

    Args:
        model: any module, an exported program, or the path of a ``.pt2`` or an ``.onnx`` file.
        input_shape: of one input, without the batch; None where there is no shape to trace for.

    Raises:
        UnboundedModuleError: its forward cannot be traced; the message names the line.
        UsageError: it is in training mode.
    """
    if isinstance(model, ExportedProgram):
        return traced_program(model)
    if not isinstance(model, nn.Module):
        return traced_file(model)
    model = unwrapped(model)
    if input_shape is None or not has_unknown_class(model):
        return model
    return traced_module(model, input_shape)
