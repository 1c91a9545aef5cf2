"""Registry of the bound methods, by name."""

from onelip.bounds._best import Best
from onelip.bounds.method import BoundMethod
from onelip.bounds.single_methods import SINGLE_METHODS
from onelip.errors import UsageError

METHODS: dict[str, BoundMethod] = {method.name: method for method in (*SINGLE_METHODS, Best())}
"""All bound methods, in the order in which ``Best`` tries them."""


def estimated() -> tuple[str, ...]:
    """Return the names of the methods that have an estimate for training."""
    return tuple(
        name
        for name, method in METHODS.items()
        if type(method).estimate is not BoundMethod.estimate
    )


def bound_method(method: BoundMethod | str) -> BoundMethod:
    """Return a method itself, or the registered one of that name.

    Raises:
        UsageError: no method has that name.
    """
    if isinstance(method, str):
        if method not in METHODS:
            raise UsageError(f"no bound method {method!r}; known: {', '.join(METHODS)}")
        return METHODS[method]
    return method
