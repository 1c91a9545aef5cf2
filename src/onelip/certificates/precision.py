"""Arithmetic of the forward pass under a certificate: the precision of the weights, not less."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from onelip.autocast import no_autocast


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inside, autocast is off, and float32 products are not rounded to TF32 or bf16.

    Args:
        device: where the model runs.

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
    """Objects, attributes and the strict value: one switch per operation since torch 2.9."""
    backends: Any = torch.backends
    operations = [(backends.cuda, "matmul"), (backends.cudnn, "conv")]
    operations += [(backends.mkldnn, "matmul"), (backends.mkldnn, "conv")]
    owners = [getattr(backend, name, None) for backend, name in operations]
    if hasattr(backends, "fp32_precision") and None not in owners:
        return [(owner, "fp32_precision", "ieee") for owner in owners]
    return [(owner, "allow_tf32", False) for owner in (backends.cuda.matmul, backends.cudnn)]
