"""Torch modules as chains, by exact type, with the refusals of ``onelip.lipschitz``."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from onelip.chains import Chain, Opaque, Shape
from onelip.chains.linear_layers import tried
from onelip.chains.value import Value, like_of
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.lipschitz import (
    LipschitzModule,
    bound_of_part,
    refuse_complex,
    refuse_hidden_behaviour,
    refuse_inherited,
    refuse_moving_weights,
)
from onelip.norms.rounding import asked_once

Reader = Callable[[Any, Value], Value]
READERS: dict[type[nn.Module], Reader] = {}
"""How modules of exactly these types are read; others with a bound are ``Opaque``."""


def reader(*kinds: type[nn.Module]) -> Callable[[Reader], Reader]:
    """Register how modules of exactly these types are read."""

    def register(function: Reader) -> Reader:
        READERS.update(dict.fromkeys(kinds, function))
        return function

    return register


@asked_once()
def read(model: nn.Module, input_shape: Shape) -> Chain:
    """A network as a chain: what bounds of whole networks are computed on.

    The maps hold the parameters of ``model`` themselves, so an estimate on the chain can be
    differentiated; ``chain.exact()`` is for proofs. Modules that have a bound and are not known
    here are read as ``Opaque``. Of a residual network that is not an ``nn.Sequential``, read the
    exported program: ``read_program(torch.export.export(model.eval(), (x,)))``.

    Cost: next to none; the bound of each module that is opaque.

    Args:
        model: an ``nn.Sequential``, nested or not, of torch's modules and of onelip's layers.
        input_shape: of a single input, without the batch.

    Returns:
        A chain with ``chain.forward(x) == model(x)`` up to rounding.

    Raises:
        UnboundedModuleError: nothing is proved for a module; the message says where it is.
        UsageError: the inputs of a module have another shape than it takes.
        NonFiniteError: a number that the reading needs is infinite or NaN.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> chain = read(net, (4,))
        >>> len(chain.blocks), chain.outputs
        (1, (2,))
    """
    shape = tuple(int(side) for side in input_shape)
    if not shape or min(shape) < 1:
        raise UsageError(f"the shape of a single input is asked, without the batch: got {shape}")
    refuse_hidden_behaviour(model)
    refuse_complex(model)
    return _sequence(model, Value.entering(shape, like_of(model)), "").chain()


def _sequence(module: nn.Module, value: Value, path: str) -> Value:
    """Walk through sequences, and name the module that cannot be read."""
    if type(module) is nn.Sequential:
        for name, part in module._modules.items():
            assert part is not None
            value = _sequence(part, value, f"{path}.{name}" if path else name)
        return value
    kind = type_before_parametrizations(module).__name__
    name = f"{path} ({kind})" if path else kind
    try:
        return read_module(module, value).named(name)
    except (UnboundedModuleError, UsageError, NonFiniteError) as error:
        raise type(error)(f"{name}: {error}") from error


def read_module(module: nn.Module, value: Value) -> Value:
    """Put a module that is no sequence behind a value."""
    kind = type_before_parametrizations(module)
    if isinstance(module, LipschitzModule):
        refuse_inherited(module, "lipschitz_bound")
    if is_parametrized(module) and module.training:
        raise UnboundedModuleError(
            "parametrizations may change the weight when it is read in training mode: model.eval()"
        )
    refuse_moving_weights(module)
    return READERS.get(kind, opaque)(module, value)


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
