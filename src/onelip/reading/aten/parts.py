"""Modules that have a proof of their own, as single operators of a traced program.

``torch.export`` would take a layer apart into operators that say less of it than the layer does. A
part stays whole: one operator that calls the module, and of which the reader asks the module. An
operator returns new numbers and leaves its input alone, so a module that does otherwise is no part.
"""

import itertools
import weakref
from collections.abc import Collection

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.lipschitz import (
    LipschitzModule,
    read_module,
    record_of,
    refuse_hidden_behaviour,
)
from onelip.reading.graphs.graph import Node, Reference
from onelip.reading.graphs.refusals import Unfinished, settled

_PARTS: weakref.WeakValueDictionary[int, nn.Module] = weakref.WeakValueDictionary()
"""Modules by the number under which programs call them; a program does not keep them alive."""
_PATHS: dict[int, str] = {}
_NUMBERS = itertools.count()


class SharesMemoryError(Exception):
    """A module changed its input in place, or returned a view of it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(type(module).__name__)
        self.module = module


@torch.library.custom_op("onelip::part", mutates_args=())
def part(x: Tensor, key: int) -> Tensor:
    """Call the module with a number."""
    y: Tensor = _PARTS[key](x)
    return y


@part.register_fake
def _(x: Tensor, key: int) -> Tensor:
    """Shape of the output, for a batch of any size.

    Raises:
        SharesMemoryError: it would not be an operator.
    """
    sizes = [side if isinstance(side, int) else 2 for side in x.shape]
    sample = x.new_empty(sizes)
    version = sample._version
    y = _PARTS[key](sample)
    if not isinstance(y, Tensor) or sample._version != version or _share_memory(sample, y):
        raise SharesMemoryError(_PARTS[key])
    return y.new_empty(y.shape[0] if isinstance(x.shape[0], int) else x.shape[0], *y.shape[1:])


def _share_memory(x: Tensor, y: Tensor) -> bool:
    return bool(x.untyped_storage()._cdata == y.untyped_storage()._cdata)


def stays_whole(module: nn.Module) -> bool:
    """Return whether a module is read by its own rule rather than by what its forward calls.

    Torch's own modules are read by their operators, and whatever has hooks, patched methods or
    parametrizations is traced through all of them.
    """
    if not isinstance(module, LipschitzModule):
        record = None if type(module) is nn.Sequential else record_of(module)
        of_torch = type_before_parametrizations(module).__module__.startswith("torch.nn.")
        if record is None or (of_torch and record.to_chain is not None):
            return False
    try:
        refuse_hidden_behaviour(module)
    except UnboundedModuleError:
        return False
    return not is_parametrized(module)


def with_parts(model: nn.Module, traced: Collection[nn.Module] = ()) -> nn.Module:
    """Copy the structure of a model, with operators for its parts; all numbers are shared.

    Args:
        model: any module.
        traced: modules that are no parts in any case.
    """
    copies: dict[int, nn.Module] = {}

    def twin_of(module: nn.Module, path: str) -> nn.Module:
        if id(module) not in copies:
            # copy.copy refuses parametrized modules
            twin = copies[id(module)] = type(module).__new__(type(module))
            vars(twin).update(vars(module))
            inside = {
                name: inner if inner is None else twin_of(inner, f"{path}.{name}".lstrip("."))
                for name, inner in module._modules.items()
            }
            own = {"_parameters": dict(module._parameters), "_buffers": dict(module._buffers)}
            vars(twin).update(own, _modules=inside)
            if path and stays_whole(module) and module not in traced:
                vars(twin)["forward"] = _Call(twin, _numbered(module, path))
        return copies[id(module)]

    return twin_of(model, "")


class _Call:
    """Forward of a part: its operator for a single tensor, and its own for anything else."""

    def __init__(self, module: nn.Module, key: int) -> None:
        self.module, self.key = module, key

    def __call__(self, *inputs: Tensor, **options: object) -> Tensor:
        if len(inputs) == 1 and isinstance(inputs[0], Tensor) and not options:
            y: Tensor = part(inputs[0], self.key)
        else:
            y = type(self.module).forward(self.module, *inputs, **options)
        return y


def _numbered(module: nn.Module, path: str) -> int:
    """Return the number under which programs call a module."""
    key = next(_NUMBERS)
    _PARTS[key], _PATHS[key] = module, path
    weakref.finalize(module, _PATHS.pop, key, None)
    return key


def part_node(name: str, value: Reference, key: int) -> Node:
    """Build the node of a part in a program.

    Args:
        name: of its result.
        value: its input.
        key: its number.

    Raises:
        UnboundedModuleError: the process has no such part (any more).
    """
    module = _PARTS.get(key)
    if module is None:
        raise UnboundedModuleError(f"node {name!r} calls a module that this process does not have")
    path, kind = _PATHS[key], type_before_parametrizations(module).__name__

    def operation(before: Value | Unfinished) -> Value:
        return read_module(module, settled(before)).named(f"{path} ({kind})")

    return Node(name, f"{path}, {kind}", (value,), (name,), operation, module)
