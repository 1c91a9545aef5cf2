"""Registry of the bound methods, by name."""

from onelip.bounds._best import Best
from onelip.bounds._eclipse import ECLipsE
from onelip.bounds._liplt import LipLT
from onelip.bounds._lipsdp import LipSDP
from onelip.bounds._local import Local
from onelip.bounds._product import Product
from onelip.bounds.method import BoundMethod
from onelip.errors import UsageError

METHODS: dict[str, BoundMethod] = {
    method.name: method
    for method in (
        Product(),
        LipLT(),
        ECLipsE(fast=True),
        ECLipsE(),
        LipSDP("layer"),
        LipSDP(),
        Local(),
        Best(),
    )
}
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
