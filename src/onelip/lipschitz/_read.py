"""Any module as a part of a chain."""

import copy

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from onelip.chains import Opaque
from onelip.chains.linear_layers import tried
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.lipschitz._bound import bound_of_part
from onelip.lipschitz.guards import refuse_moving_weights
from onelip.lipschitz.inheritance import refuse_inherited
from onelip.lipschitz.module import LipschitzModule
from onelip.lipschitz.records import record_of


def read_module(module: nn.Module, value: Value) -> Value:
    """Put a module that is no sequence behind a value."""
    if isinstance(module, LipschitzModule):
        refuse_inherited(module, "lipschitz_bound")
    if is_parametrized(module) and module.training:
        raise UnboundedModuleError(
            "parametrizations may change the weight when it is read in training mode: model.eval()"
        )
    refuse_moving_weights(module)
    if isinstance(module, LipschitzModule):
        if type(module).to_chain is not LipschitzModule.to_chain:
            refuse_inherited(module, "to_chain")
        return module.to_chain(value)
    record = record_of(module)
    to_chain = opaque if record is None or record.to_chain is None else record.to_chain
    return to_chain(module, value)


def opaque(module: nn.Module, value: Value) -> Value:
    """A module of which only its bound is known."""
    try:
        constant = float(bound_of_part(module))
    except UnboundedModuleError as error:
        if not any(True for _ in module.children()) or isinstance(module, LipschitzModule):
            raise
        raise UnboundedModuleError(f"{error}; or read its export, with read_program") from error
    own = any(isinstance(part, LipschitzModule) for part in module.modules())
    if own and module.training:  # its forward may take a power step
        module = copy.deepcopy(module).eval()
    sample = value.point.like.new_zeros(2, *value.shape)
    with torch.no_grad():
        shape = tuple(tried(copy.deepcopy(module), sample).shape[1:])
    return value.activated(Opaque(module, constant, shape))
