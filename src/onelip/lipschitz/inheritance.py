"""Defaults of abstract bases, and the classes that they speak for."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip.errors import UnboundedModuleError

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def overridable(method: MethodT) -> MethodT:
    """Mark a method that derived classes may write anew: no default proof rests on it."""
    method.__overridable__ = True  # type: ignore[attr-defined]
    return method


_OVERRIDABLE = {
    "__dict__",
    "__weakref__",
    "__init__",
    "__init_subclass__",
    "__repr__",
    "extra_repr",
}
_OVERRIDABLE |= {"reset_parameters", "_load_from_state_dict", "_save_to_state_dict"}
_OVERRIDABLE |= {"get_extra_state", "set_extra_state"}  # a state is read as it is


_QUERIES = {"lipschitz_bound", "export"}
_READINGS = {"to_chain", "forward_error"}  # which say nothing of what ``forward`` computes


def refuse_inherited(module: nn.Module, method: str) -> None:
    """Refuse a default that was written for other classes than the module's.

    A layer is final: what it proves of itself says nothing about a class derived from it. What an
    abstract base proves holds for classes that fill in its abstract methods, and leave all others
    that it has alone: those the proof rests on. A class for which it holds nevertheless says so by
    adopting it, ``lipschitz_bound = Base.lipschitz_bound``.

    Raises:
        UnboundedModuleError: the method comes from another concrete class than the module's own, or
            a class between its owner and the module's overrides something else.
    """
    kind = type_before_parametrizations(module)
    lineage = kind.__mro__
    place = next(i for i, base in enumerate(lineage) if method in vars(base))
    owner = lineage[place]
    layers = [base for base in lineage[: place + 1] if issubclass(base, nn.Module)]
    concrete = [base for base in layers if not inspect.isabstract(base)]
    if len(concrete) > 1:
        raise UnboundedModuleError(
            f"{kind.__name__} inherits {method} from {owner.__name__}, which speaks for "
            f"{concrete[1].__name__} only: write one for it"
        )
    free = _READINGS | (_QUERIES if method in _READINGS else set())
    for base in lineage:  # in front of the owner, or after it, but before a base of the owner
        for name, value in () if base in owner.__mro__ else vars(base).items():
            if name not in free and _rests_on(owner, name, value):
                raise UnboundedModuleError(
                    f"{kind.__name__} inherits {method} from {owner.__name__}, which knows nothing "
                    f"of {base.__name__}.{name}: write {method} for it, or, if it still holds, "
                    f"adopt it by {method} = {owner.__name__}.{method} in the class"
                )


_MISSING = object()


def _rests_on(owner: type, name: str, value: object) -> bool:
    """Whether a default of this class may depend on what it has under a name, and is now a value.

    Data may be replaced by data, for forward and proof read the same.
    """
    own = inspect.getattr_static(owner, name, _MISSING)
    if own is _MISSING or name in _OVERRIDABLE or name in getattr(owner, "__abstractmethods__", ()):
        return False
    function = own.__func__ if isinstance(own, classmethod | staticmethod) else own
    return not (_is_data(own) and _is_data(value)) and not hasattr(function, "__overridable__")


def _is_data(value: object) -> bool:
    return isinstance(value, type) or not (callable(value) or hasattr(type(value), "__get__"))
