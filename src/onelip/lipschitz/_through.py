"""Rounding of any part of a network, for which a rule is known."""

import copy
import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from onelip.chains import Shape
from onelip.forward_error import ABOVE, Arithmetic, Computed, Local, Reference, Run, lengths
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
    inside = rounding_of(module)
    constant = float(bound_of_part(module) if lipschitz is None else lipschitz)
    shape = _shape_behind(module, x.shape)
    offset, error = inside(Run(arithmetic, x.as_exact(), shape, constant))
    size = (constant * x.size + offset) * ABOVE
    near = None
    if x.near is not None:
        near = _followed(module, x.near, functools.partial(_local, inside, shape, constant))
        size = torch.fmin((near.lengths + near.away) * ABOVE, torch.as_tensor(size))
    result = Computed(
        shape,
        size,
        (constant * x.error + error) * ABOVE,
        (constant * x.offset + offset) * ABOVE,
        near,
    )
    arithmetic.check(result.reach)
    return result


def _local(
    inside: Callable[[Run], Local], shape: Shape, constant: float, point: Tensor
) -> tuple[Local, float]:
    """Return what rounding does inside a part at some vectors, and the part's constant."""
    arithmetic = Arithmetic.of(point.dtype)
    x = Computed(tuple(point.shape[1:]), lengths(point.double()))
    return inside(Run(arithmetic, x, shape, constant)), constant


def _followed(
    module: nn.Module, near: Reference, local: Callable[[Tensor], tuple[Local, float]]
) -> Reference:
    """Follow known vectors: in float64, where the part is the same function there.

    Where it is not, as it computes its numbers from others, in its own dtype.
    """
    point, cast = near.point, torch.zeros(())
    if same_in_float64(module):
        twin = copy.deepcopy(module).double().cpu()
        image = twin(point.clone())  # modules may work in place
    else:
        like = next((n for n in _numbers(module) if n.is_floating_point()), torch.zeros(()))
        point = near.point.to(like.dtype)
        cast = lengths(point.double() - near.point)
        image = module(point.to(like.device, copy=True)).double().cpu()
    found, constant = local(point)
    return Reference(
        image,
        (constant * (near.off + cast) + found.error) * ABOVE,
        constant * near.drift * ABOVE,
    )


def same_in_float64(module: nn.Module) -> bool:
    """Whether a module in float64 is the same function, for all that is known.

    It is for modules of torch, which use their numbers as they are, and for layers that say so.
    """
    return all(
        part.same_in_float64 if isinstance(part, LipschitzModule) else _is_of_torch(part)
        for part in module.modules()
    )


def _is_of_torch(part: nn.Module) -> bool:
    return type(part).__module__.startswith("torch.nn.modules.")


def _numbers(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _shape_behind(module: nn.Module, shape: Shape) -> Shape:
    numbers = [n for n in _numbers(module) if n.is_floating_point()]
    zeros = torch.zeros(1, *shape)
    if numbers:
        zeros = zeros.to(numbers[0])
    return tuple(module(zeros).shape[1:])


def rounding_of(module: nn.Module) -> Callable[[Run], Local]:
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
