"""Context in which a norm that is needed more than once is proved once."""

import contextlib
import math
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

from onelip.norms.rounding import asked_once, power_of_two

Proofs = list[tuple[Tensor, Tensor]]

_PROVED: ContextVar[dict[Hashable, Proofs] | None] = ContextVar("proved", default=None)


@contextlib.contextmanager
def proved_once() -> Iterator[None]:
    """Prove the norm of the same numbers, taken in the same way, once until the context ends.

    Numbers are compared with a copy, entry by entry, so that weights that change inside the context
    are proved anew: a norm is never older than its weights. An inner context shares the outer one's
    norms, another thread has none of them, and nothing is left after the last, whatever is raised.
    ``certify`` enters one by itself.

    Cost: a copy of each weight in float64 while it lasts.

    Example:
        >>> import torch, onelip
        >>> layer = torch.nn.Linear(3, 3)
        >>> with proved_once():
        ...     first, second = onelip.lipschitz_bound(layer), onelip.lipschitz_bound(layer)
        >>> bool(first == second)
        True
    """
    token = None if _PROVED.get() is not None else _PROVED.set({})
    try:
        with asked_once():
            yield
    finally:
        if token is not None:
            _PROVED.reset(token)


def known(numbers: Tensor, way: Hashable, prove: Callable[[Tensor], Tensor]) -> Tensor:
    """A proved norm of these numbers: inside ``proved_once`` an earlier one, if there is one.

    Numbers that differ by a power of two, as scaled maps do, share one proof.

    Args:
        numbers: finite ones, in float64 or complex128.
        way: all else that the norm depends on.
        prove: makes the proof; it is a bound of a norm, and a multiple has that multiple of it.
    """
    proved = _PROVED.get()
    if proved is None or not numbers.numel():
        return prove(numbers)
    scale = power_of_two(numbers)
    scaled = numbers * scale
    if scale < 1 and not torch.equal(scaled / scale, numbers):  # small ones were lost
        scale, scaled = 1.0, numbers.clone()
    proofs = proved.setdefault((way, numbers.shape, numbers.dtype, numbers.device), [])
    norm = next((norm for same, norm in proofs if torch.equal(same, scaled)), None)
    if norm is None:
        norm = prove(scaled)
        proofs.append((scaled, norm))
    return _unscaled(norm, scale)


def _unscaled(norm: Tensor, scale: float) -> Tensor:
    """``norm / scale``, rounded upwards where it leaves the range of normal numbers."""
    found = norm / scale
    return torch.where(found * scale == norm, found, torch.nextafter(found, found + math.inf))
