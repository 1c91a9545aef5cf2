"""Any module as a part of a chain."""

import copy

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from onelip.chains.linear_layers import opaque
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.lipschitz._bound import bound_of_part, refuse_unproved
from onelip.lipschitz.guards import refuse_moving_weights
from onelip.lipschitz.inheritance import refuse_inherited
from onelip.lipschitz.module import LipschitzModule
from onelip.lipschitz.records import record_of


def read_module(module: nn.Module, value: Value) -> Value:
    """A module that is no sequence, after a value.

    Raises:
        UnboundedModuleError: nothing is proved of it, or its weights move.
        UsageError: it does not take inputs of the value's shape.
    """
    if is_parametrized(module) and module.training:
        raise UnboundedModuleError(
            "parametrizations may change the weight when it is read in training mode: model.eval()"
        )
    refuse_moving_weights(module)
    if isinstance(module, LipschitzModule):
        return _read_layer(module, value)
    record = record_of(module)
    if record is None or record.to_chain is None:
        return _read_bound(module, value)
    return record.to_chain(module, value)


def _read_layer(layer: LipschitzModule, value: Value) -> Value:
    """A layer by its own method, if that speaks for its class."""
    refuse_unproved(layer)
    if type(layer).to_chain is not LipschitzModule.to_chain:
        refuse_inherited(layer, "to_chain")
    return layer.to_chain(value)


def _read_bound(module: nn.Module, value: Value) -> Value:
    """A module that has a bound, and nothing else."""
    constant = float(bound_of_part(module))
    own = any(isinstance(part, LipschitzModule) for part in module.modules())
    if own and module.training:  # its forward may take a power step
        module = copy.deepcopy(module).eval()
    return opaque(module, constant, value)
