"""torch's automatic mixed precision, which not every device has."""

import contextlib

import torch


def no_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """A context without autocast; nothing on devices that have none, such as ``meta``.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), no_autocast("cpu"):
        ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
        torch.float32
    """
    if not torch.amp.is_autocast_available(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


def in_lower_precision(device_type: str) -> torch.dtype | None:
    """The type that autocast computes in, or None where it is off."""
    if not torch.amp.is_autocast_available(device_type):
        return None
    enabled = torch.is_autocast_enabled(device_type)
    return torch.get_autocast_dtype(device_type) if enabled else None
