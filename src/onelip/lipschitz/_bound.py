"""The Lipschitz bound of any module that has one."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip.errors import UnboundedModuleError
from onelip.lipschitz.guards import finite, refuse_hidden_behaviour, refuse_moving
from onelip.lipschitz.inheritance import refuse_inherited
from onelip.lipschitz.module import LipschitzModule
from onelip.lipschitz.records import record_of, rule
from onelip.norms.rounding import asked_once, product


@torch.no_grad()
@asked_once()
def lipschitz_bound(module: nn.Module) -> Tensor:
    """Proved upper bound of the Lipschitz constant of a module, from l2 to l2.

    Bound: for sequences, the product of the bounds of the parts.
    Cost: that of the norms of all layers (``onelip.norms``), once, in float64.

    Args:
        module: a ``LipschitzModule``, or a torch module with a rule.

    Returns:
        A 0-d float64 tensor on the CPU.

    Raises:
        UnboundedModuleError: nothing is proved for this module; the message names it.
        NonFiniteError: a weight, or the bound itself, is infinite or NaN.

    Example:
        >>> import torch, onelip
        >>> onelip.lipschitz_bound(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()))
        tensor(1., dtype=torch.float64)
    """
    refuse_hidden_behaviour(module)
    return bound_of_part(module)


@torch.no_grad()
def bound_of_part(module: nn.Module) -> Tensor:
    """Bound of a part of a module that ``refuse_hidden_behaviour`` has walked through already.

    For rules of modules that hold others, and for queries that have many parts: hooks and patched
    methods are not looked for again.
    """
    if isinstance(module, LipschitzModule):
        refuse_unproved(module)
        value = module.lipschitz_bound()
    else:
        record = record_of(module)
        if record is None:
            raise UnboundedModuleError(_unknown(type_before_parametrizations(module)))
        refuse_moving(module)
        value = torch.as_tensor(record.lipschitz_bound(module), dtype=torch.float64)
    return finite(value.to("cpu", torch.float64), type(module).__name__)


def _unknown(kind: type[nn.Module]) -> str:
    """Message for a class without a rule; its forward can be traced, given a shape."""
    return (
        f"no Lipschitz bound is known for {kind.__module__}.{kind.__qualname__}; derive it from "
        "onelip.LipschitzModule or register a rule with onelip.lipschitz.rule; or give the shape "
        "of one input, (model, (3, 32, 32)), and its forward is traced"
    )


def refuse_unproved(layer: LipschitzModule) -> None:
    """Refuse a layer whose bound was written for another class, or whose weights move.

    Raises:
        UnboundedModuleError: it is one of these.
    """
    refuse_inherited(layer, "lipschitz_bound")
    for part in layer.modules():
        refuse_moving(part)


@rule(nn.Sequential)
def _sequential(module: nn.Sequential) -> Tensor:
    return product([bound_of_part(part) for part in module])
