"""Rounding of any part of a network, for which a rule is known."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from onelip.chains import Shape
from onelip.forward_error import ABOVE, Arithmetic, Computed, Local, Run
from onelip.lipschitz._bound import bound_of_part
from onelip.lipschitz.inheritance import refuse_inherited
from onelip.lipschitz.module import LipschitzModule, unknown_rounding
from onelip.lipschitz.records import RECORDS


def through(
    module: nn.Module, x: Computed, arithmetic: Arithmetic, *, lipschitz: Tensor | None = None
) -> Computed:
    """Follow a vector through a part.

    Args:
        module: of a type with a rule.
        x: what is known of its input.
        arithmetic: in which it runs.
        lipschitz: a proved constant, if it is at hand.

    Raises:
        UnboundedModuleError: no rule is known for the part, or none for its settings.
        NonFiniteError: a weight is not finite, or numbers may overflow.
    """
    inside = _rule(module)
    constant = float(bound_of_part(module) if lipschitz is None else lipschitz)
    shape = _shape_behind(module, x.shape)
    run = Run(arithmetic, Computed(x.shape, x.reach), shape, constant)
    offset, error = inside(run)
    result = Computed(
        shape,
        (constant * x.size + offset) * ABOVE,
        (constant * x.error + error) * ABOVE,
        (constant * x.offset + offset) * ABOVE,
    )
    arithmetic.check(result.reach)
    return result


def _shape_behind(module: nn.Module, shape: Shape) -> Shape:
    numbers = [n for n in (*module.parameters(), *module.buffers()) if n.is_floating_point()]
    zeros = torch.zeros(1, *shape)
    if numbers:
        zeros = zeros.to(numbers[0])
    return tuple(module(zeros).shape[1:])


def _rule(module: nn.Module) -> Callable[[Run], Local]:
    """The function that says what rounding does inside a part.

    Raises:
        UnboundedModuleError: there is none.
    """
    if isinstance(module, LipschitzModule):
        if type(module).forward_error is not LipschitzModule.forward_error:
            refuse_inherited(module, "forward_error")
        return module.forward_error
    record = RECORDS.get(type(module))  # a parametrized module computes its weight as well
    if record is None or record.forward_error is None:
        raise unknown_rounding(module)
    return functools.partial(record.forward_error, module)
