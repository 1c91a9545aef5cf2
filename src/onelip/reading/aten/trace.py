"""Traces of modules that nothing is known of but their forward."""

import contextlib
import io
import logging
import site
import traceback
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from onelip.chains import Shape
from onelip.chains.value import like_of
from onelip.errors import UnboundedModuleError, UsageError
from onelip.quiet import quiet
from onelip.reading.aten.parts import SharesMemoryError, with_parts

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)  # whose mode changes nothing
_LIBRARIES = (Path(torch.__file__).parent, *map(Path, site.getsitepackages()))


def trace(model: nn.Module, input_shape: Shape) -> ExportedProgram:
    """Trace the forward of a module by ``torch.export``, for batches of any size.

    Layers with a proof of their own stay whole (``parts``); hooks, pruning masks, parametrizations
    and loops that unroll are traced.

    Args:
        model: in eval mode.
        input_shape: of one input, without the batch.

    Raises:
        UsageError: a part is in training mode, or its forward cannot be traced; the message names
            the line.
    """
    training = [
        name or "the model"
        for name, part in model.named_modules()
        if part.training and type(part) not in _CONTAINERS
    ]
    if training:
        raise UsageError(
            f"{training[0]} is in training mode, in which a forward may do other things: call "
            "model.eval() first"
        )
    example = like_of(model).new_zeros(2, *input_shape)
    batch = ({0: torch.export.Dim("batch")},)
    traced: list[nn.Module] = []
    while True:
        try:
            # torch prints and logs the graph that it could not finish
            with (
                quiet("torch", level=logging.CRITICAL),
                contextlib.redirect_stderr(io.StringIO()),
                torch.no_grad(),
            ):
                twin = with_parts(model, traced)
                return torch.export.export(twin, (example,), dynamic_shapes=batch, strict=False)
        except SharesMemoryError as error:
            traced.append(error.module)
        except Exception as error:  # a forward can raise anything
            raise UnboundedModuleError(
                f"the forward of {type(model).__name__} cannot be traced for inputs of shape "
                f"{tuple(input_shape)}: {_reason(error)}"
            ) from error


def _reason(error: Exception) -> str:
    """Why a trace failed, and the line of the user's code where it did."""
    kind = type(error).__name__
    if kind == "GuardOnDataDependentSymNode":
        reason = "what it does next depends on the numbers of its input"
    elif "Constraints violated" in str(error) or "ConstraintViolation" in kind:
        reason = "what it does depends on the size of the batch"
    else:
        reason = f"{kind}: {str(error).strip().partition(chr(10))[0]}"
    places = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(Path(frame.filename).is_relative_to(folder) for folder in _LIBRARIES)
        and Path(frame.filename) != Path(__file__)
        and "onelip" not in Path(frame.filename).parts
    ]
    if not places:
        return reason
    last = places[-1]
    return f"{Path(last.filename).name}, line {last.lineno}, {last.line}: {reason}"
