"""Bounds of modules that are not ours, by exact type."""

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from onelip.errors import UnboundedModuleError

Rule = Callable[[Any], Tensor | float]
RuleT = TypeVar("RuleT", bound=Rule)

RULES: dict[type[nn.Module], Rule] = {}
"""Bounds of modules that are not ours, by exact type: a subclass does not inherit a rule."""


def rule(*kinds: type[nn.Module]) -> Callable[[RuleT], RuleT]:
    """Register a bound for modules of exactly these types."""

    def register(function: RuleT) -> RuleT:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


LIBRARIES = {
    "deel.torchlip": "onelip.foreign.deel_torchlip",
    "orthogonium": "onelip.foreign.orthogonium",
}
"""Our files on the layers of other libraries, imported when such a layer is met."""


def of_library(kind: type[nn.Module], table: str) -> Any:
    """What our file on the library that a type comes from says of exactly this type, or None.

    Raises:
        UnboundedModuleError: the library has other classes than those that the file was written on.
    """
    for library, file in LIBRARIES.items():
        if f"{kind.__module__}.".startswith(f"{library}."):
            try:
                return getattr(importlib.import_module(file), table).get(kind)
            except (ImportError, AttributeError) as error:
                raise UnboundedModuleError(
                    f"{file} was written on another version of {library}: {error}"
                ) from error
    return None
