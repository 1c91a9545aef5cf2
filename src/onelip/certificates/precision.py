"""Full precision of the forward pass of a certificate: no autocast, no TF32."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from onelip.autocast import no_autocast


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Turn autocast off inside, and TF32 and bf16 products of float32 numbers.

    Args:
        device: device of the model.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), full_precision(torch.device("cpu")):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.float32
    """
    switches = _switches()
    before = [getattr(owner, name) for owner, name, _ in switches]
    try:
        for owner, name, strict in switches:
            setattr(owner, name, strict)
        with no_autocast(device.type):
            yield
    finally:
        for (owner, name, _), value in zip(switches, before, strict=True):
            setattr(owner, name, value)


def _switches() -> list[tuple[Any, str, Any]]:
    """Return objects, attributes and strict values: one per operation since torch 2.9."""
    backends: Any = torch.backends
    operations = [(backends.cuda, "matmul"), (backends.cudnn, "conv")]
    operations += [(backends.mkldnn, "matmul"), (backends.mkldnn, "conv")]
    owners = [getattr(backend, name, None) for backend, name in operations]
    if hasattr(backends, "fp32_precision") and None not in owners:
        return [(owner, "fp32_precision", "ieee") for owner in owners]
    return [(owner, "allow_tf32", False) for owner in (backends.cuda.matmul, backends.cudnn)]
