"""Refusals of modules whose numbers or outputs change out of sight of a proof."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import prune
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from onelip.errors import NonFiniteError, UnboundedModuleError


def finite(bound: Tensor, name: str) -> Tensor:
    """The bound, if it is one.

    Raises:
        NonFiniteError: it is infinite or NaN.
    """
    if not torch.isfinite(bound):
        raise NonFiniteError(f"the bound of {name} is {float(bound)}")
    return bound


def refuse_hidden_behaviour(module: nn.Module) -> None:
    """Hooks and patched methods change what a module computes, out of sight of its rule.

    Raises:
        UnboundedModuleError: forward hooks or patched methods on the module or one inside it, or
            forward hooks on all modules.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        raise UnboundedModuleError("a forward hook is registered for all modules: remove it")
    for part in module.modules():
        patched = [name for name in vars(part) if callable(getattr(type(part), name, None))]
        if part._forward_hooks or part._forward_pre_hooks or patched:
            raise UnboundedModuleError(
                f"{type(part).__name__} has {_what_is_hidden(part, patched)}"
            )


def _what_is_hidden(part: nn.Module, patched: list[str]) -> str:
    """Name of what changes a module's outputs out of sight, and the way out."""
    if hasattr(part, "_orig_mod"):
        return "a compiled forward: pass the module that was compiled, model._orig_mod"
    if patched:
        return f"a patched method, {', '.join(patched)}: remove it, or derive a class and prove it"
    for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            return (
                f"a pruned {name}: make it permanent, torch.nn.utils.prune.remove(part, '{name}')"
            )
        if type(hook).__module__.startswith("torch.nn.utils."):
            name = f"{type(hook).__module__}.{type(hook).__name__}"
            return f"the forward hook {name}: use torch.nn.utils.parametrizations instead"
    return "a forward hook, which may change what it computes: handle.remove() while it is proved"


def refuse_complex(module: nn.Module) -> None:
    """Whole networks are read, and certified, in real numbers.

    Raises:
        UnboundedModuleError: a weight is complex.
    """
    for name, weight in module.named_parameters():
        if weight.is_complex():
            raise UnboundedModuleError(
                f"{name} is complex: onelip.lipschitz_bound takes single complex layers, networks "
                "are bounded and certified in real numbers (view_as_real)"
            )


def refuse_moving(module: nn.Module) -> None:
    """Refuse parametrizations that may change the weight when it is read.

    Raises:
        UnboundedModuleError: a parametrization in training mode, or one that moves in eval mode.
    """
    if module.training and is_parametrized(module):
        raise UnboundedModuleError(
            f"a parametrized {type_before_parametrizations(module).__name__} may change its weight "
            "when it is read in training mode: model.eval()"
        )
    refuse_moving_weights(module)


def refuse_moving_weights(module: nn.Module) -> None:
    """Some parametrizations go on with a power iteration when they are read, in eval mode too.

    Raises:
        UnboundedModuleError: weights of a copy, or its state, change from reading to reading.
    """
    if not is_parametrized(module):
        return
    twin = copy.deepcopy(module)
    weights = [part() for part in twin.parametrizations.values()]  # type: ignore[operator]
    again = [part() for part in twin.parametrizations.values()]  # type: ignore[operator]
    pairs = [*zip(weights, again, strict=True), *zip(_state(module), _state(twin), strict=True)]
    if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
        raise UnboundedModuleError(
            f"{type_before_parametrizations(module).__name__} computes another weight each time it "
            "is read, in eval mode too: onelip.export(model) fixes it"
        )


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]
