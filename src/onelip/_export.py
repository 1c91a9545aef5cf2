"""Export of a trained model to plain modules with fixed weights."""

import copy
from collections import OrderedDict
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from onelip.errors import UsageError
from onelip.layers.accumulated import WITH_SUMS, Accumulated
from onelip.layers.composite import Composite
from onelip.layers.rescale import Rescale
from onelip.lipschitz import (
    LipschitzModule,
    has_unknown_class,
    record_of,
    refuse_hidden_behaviour,
    refuse_inherited,
    unwrapped,
)
from onelip.norms.convolutions import pair
from onelip.norms.rounding import asked_once


@asked_once()
def export(model: nn.Module, *, accumulate: torch.dtype | None = None) -> nn.Module:
    """Copy a model into plain torch modules with fixed weights, for certificates and for use.

    Layers whose step or kernel rested on an estimate in training get one that rests on a proved
    norm: Convex Potential layers become 1-Lipschitz by proof. Where the estimate was already good
    enough, the exported network computes the same function.

    Cost: one proved norm per layer that needs it.

    Args:
        model: a ``LipschitzModule``, a torch module, an ``nn.Sequential`` of them, or a module of
            any class, of which the forward stays and the layers inside are exported.
        accumulate: ``torch.float64`` lets linear parts compute in float64 and round their results
            to float32 (``layers.Accumulated``): certificates of level ``float`` then cost next to
            nothing, whatever the order of the sums. For sequences of layers. onnxruntime has no
            convolutions in float64, so it does not run those in an ``.onnx`` file.

    Returns:
        A new module in eval mode, without gradients; ``model`` is left alone.

    Raises:
        UnboundedModuleError: a part has a forward hook or a patched forward.
        NonFiniteError: a weight of a layer that needs a proved norm is infinite or NaN.
        UsageError: ``accumulate`` is another dtype, or the model has a class of its own.

    Example:
        >>> import onelip
        >>> onelip.export(nn.Sequential(onelip.layers.UnitNormLinear(4, 2)))
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    model = unwrapped(model)
    if accumulate not in (None, torch.float64):
        raise UsageError(f"sums are accumulated in torch.float64, not in {accumulate}")
    if has_unknown_class(model):
        if accumulate is not None:
            raise UsageError(
                f"{type(model).__name__} may use its layers in any way: accumulate works for "
                "sequences of known layers"
            )
        return _with_exported_parts(model).requires_grad_(False)
    refuse_hidden_behaviour(model)
    exported = _exported(model).eval().requires_grad_(False)
    return exported if accumulate is None else _accumulated(exported).eval()


def _accumulated(module: nn.Module) -> nn.Module:
    """Wrap the parts with long sums, so that they compute in float64."""
    if type(module) is nn.Sequential:
        names = module._modules  # unlike named_children(), with modules that occur twice
        return nn.Sequential(OrderedDict(zip(names, map(_accumulated, module), strict=True)))
    if isinstance(module, Composite):
        return module.with_parts(_accumulated)
    return Accumulated(module) if type(module) in WITH_SUMS else module


def _with_exported_parts(model: nn.Module) -> nn.Module:
    """Copy a model of a class of its own, whose forward calls the exports of its layers."""
    exports: dict[int, nn.Module] = {}

    def find(module: nn.Module) -> None:
        for part in module.children():
            if isinstance(part, LipschitzModule) or _has_export(part):
                refuse_hidden_behaviour(part)  # its export has no hooks
                exports[id(part)] = _exported(part)
            else:
                find(part)

    find(model)
    return fixed(model, dict(exports))


def _has_export(module: nn.Module) -> bool:
    """Return whether a module is exported as something else than a copy."""
    record = None if type(module) is nn.Sequential else record_of(module)
    return _drops_divisor(module) or (record is not None and record.export is not None)


def _exported(module: nn.Module) -> nn.Module:
    if isinstance(module, Composite):
        refuse_inherited(module, "with_parts")
        return module.with_parts(_exported)
    if isinstance(module, LipschitzModule):
        if type(module).export is not LipschitzModule.export:
            refuse_inherited(module, "export")
        return module.export()
    if type(module) is nn.Sequential:
        names = module._modules  # unlike named_children(), with modules that occur twice
        return nn.Sequential(OrderedDict(zip(names, map(_exported, module), strict=True)))
    record = record_of(module)
    if record is not None and record.export is not None:
        return record.export(module)
    if _drops_divisor(module):
        return _without_divisor(module)
    return fixed(module)


def _drops_divisor(module: nn.Module) -> TypeGuard[nn.AvgPool2d]:
    """Return whether ONNX exporters change a module silently."""
    divisor = type(module) is nn.AvgPool2d and module.divisor_override and not module.ceil_mode
    return bool(divisor)


def _without_divisor(pool: nn.AvgPool2d) -> nn.Sequential:
    """Return an average times a factor, since ONNX exporters drop ``divisor_override`` silently."""
    height, width = pair(pool.kernel_size)
    assert pool.divisor_override is not None
    average = nn.AvgPool2d(pool.kernel_size, pool.stride, pool.padding)
    return nn.Sequential(average, Rescale(height * width / pool.divisor_override, trained=False))


def fixed(module: nn.Module, copied: dict[int, Any] | None = None) -> nn.Module:
    """Return a copy in eval mode, with the values of parametrizations in their place.

    Args:
        module: any.
        copied: copies of parts that stand in for them, by the identity of the part.
    """
    result = copy_of(module, copied).eval()
    for part in result.modules():
        if parametrize.is_parametrized(part):
            _fix(part)
    return result


def copy_of(module: nn.Module, copied: dict[int, Any] | None = None) -> nn.Module:
    """Return a deep copy, also of a module whose weight is no parameter, such as a pruned one."""
    memo = dict(copied or {})
    for part in module.modules():  # deepcopy refuses tensors that were computed
        computed = [n for n in vars(part).values() if isinstance(n, Tensor) and not n.is_leaf]
        memo.update((id(number), number.detach().clone()) for number in computed)
    return copy.deepcopy(module, memo)


def _fix(part: nn.Module) -> None:
    """Replace parametrizations by their values.

    ``remove_parametrizations`` would edit the class, which a copy shares with its original.
    """
    values = {name: weight() for name, weight in part.parametrizations.items()}  # type: ignore[operator, union-attr]
    part.__class__ = parametrize.type_before_parametrizations(part)
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value.detach().clone()))
