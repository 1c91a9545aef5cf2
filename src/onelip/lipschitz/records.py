"""Records of modules that are not ours, by exact type."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import Local, Run

Rule = Callable[[Any], Tensor | float]
RuleT = TypeVar("RuleT", bound=Rule)


@dataclass(frozen=True, kw_only=True)
class ModuleRecord:
    """Answers for modules of one exact type that a ``LipschitzModule`` gives by its methods.

    Attributes:
        lipschitz_bound: an upper bound of the Lipschitz constant, rounded upwards.
        to_chain: the module after a value; where it is missing, the bound is all that is known.
        forward_error: what rounding does; where it is missing, level ``float`` is refused.
        export: plain modules with fixed weights; where it is missing, a copy.
    """

    lipschitz_bound: Rule
    to_chain: Callable[[Any, Value], Value] | None = None
    forward_error: Callable[[Any, Run], Local] | None = None
    export: Callable[[Any], nn.Module] | None = None


RECORDS: dict[type[nn.Module], ModuleRecord] = {}
"""Records by exact type: a derived class inherits nothing."""


def rule(*kinds: type[nn.Module]) -> Callable[[RuleT], RuleT]:
    """Register a bound for modules of exactly these types."""

    def register(function: RuleT) -> RuleT:
        RECORDS.update(dict.fromkeys(kinds, ModuleRecord(lipschitz_bound=function)))
        return function

    return register


LIBRARIES = {
    "deel.torchlip": "onelip.foreign.deel_torchlip",
    "orthogonium": "onelip.foreign.orthogonium",
}
"""Our files on the layers of other libraries, imported when such a layer is met."""


def record_of(module: nn.Module) -> ModuleRecord | None:
    """The record of a module's exact type, parametrizations aside; None if there is none.

    Raises:
        UnboundedModuleError: the module's library has other classes than those that our file on it
            was written on.
    """
    kind = type_before_parametrizations(module)
    return RECORDS.get(kind) or _of_library(kind)


def _of_library(kind: type[nn.Module]) -> ModuleRecord | None:
    for library, file in LIBRARIES.items():
        if f"{kind.__module__}.".startswith(f"{library}."):
            try:
                known: dict[type[nn.Module], ModuleRecord] = importlib.import_module(file).RECORDS
            except (ImportError, AttributeError) as error:
                raise UnboundedModuleError(
                    f"{file} was written on another version of {library}: {error}"
                ) from error
            return known.get(kind)
    return None
