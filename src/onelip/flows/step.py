"""Step sizes h in time: checks, and the rounded number that ``forward`` multiplies by."""

import math

import torch
from torch import Tensor, nn


def checked_step(step: float) -> float:
    """Return the step size as a float, after a check.

    Raises:
        ValueError: it is not positive, or not finite.
    """
    if not 0 < step < math.inf:
        raise ValueError(f"a step must be positive and finite, got {step}")
    return float(step)


def step_of(module: nn.Module, step: float) -> Tensor:
    """Return the step size in the precision of the parameters, for ``forward`` and the bound.

    Raises:
        ValueError: in that precision it is 0 or infinite.
    """
    some = next(module.parameters(), None)
    rounded = torch.tensor(step) if some is None else some.detach().new_tensor(step)
    if not 0 < float(rounded) < math.inf:
        raise ValueError(
            f"a step of {step} is {float(rounded)} in {rounded.dtype}: module.double()"
        )
    return rounded


def rounded_down(step: Tensor, like: Tensor) -> Tensor:
    """Round a positive float64 number down to the dtype and device of another tensor."""
    near = step.to(like)
    return torch.nextafter(near, torch.zeros_like(near)) if near.double().cpu() > step else near
