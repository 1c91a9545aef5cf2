"""What depends on a network's input and has no Lipschitz bound by itself.

Some become one with what follows: a square under a root is a length. Whatever else takes them is
refused, with the mathematics that is missing.
"""

import abc
from collections.abc import Callable
from typing import Any

from onelip.errors import UnboundedModuleError


class Unfinished(abc.ABC):
    """An intermediate result without a bound of its own."""

    @abc.abstractmethod
    def settled(self) -> object:
        """The value that it is.

        Raises:
            UnboundedModuleError: it has no global Lipschitz constant.
        """


def settled(part: Any) -> Any:
    """The value that an unfinished result is; in lists, too."""
    if isinstance(part, list):
        return [settled(inner) for inner in part]
    return part.settled() if isinstance(part, Unfinished) else part


def on_settled(operator: Callable[..., Any]) -> Callable[..., Any]:
    """An operator that is given values."""
    return lambda *parts: operator(*map(settled, parts))


def only_locally(what: str) -> UnboundedModuleError:
    """The error for a map whose slope grows without limit, be it far out or near a pole."""
    return UnboundedModuleError(
        f"{what} has no global Lipschitz constant: its slope grows without limit. A local bound, "
        "on a box or a ball of inputs that meets no pole, exists; none is computed for it here"
    )


def unbounded_product(what: str) -> UnboundedModuleError:
    """The error for a product of which a factor is not known to be bounded."""
    return UnboundedModuleError(
        f"{what} that depend on the input has no global Lipschitz constant unless both are "
        "bounded, which is not known here: its slope grows with its factors. A local bound, on a "
        "box or a ball of inputs, exists; none is computed for it here"
    )


def jumps(what: str) -> UnboundedModuleError:
    """The error for a map that is not continuous."""
    return UnboundedModuleError(
        f"{what} jumps: no Lipschitz constant exists, global or on any box that its jump meets"
    )
