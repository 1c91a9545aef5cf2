"""Parts of checks: inputs, weights, and a search for pairs that are stretched most."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from onelip.errors import NonFiniteError, NotApplicableError, UnboundedModuleError

REFUSALS = (UnboundedModuleError, NonFiniteError, NotApplicableError)
PAIRS = 8  # pairs whose stretch is optimised at the same time
_ASCENT, _STEP = 15, 0.3  # steps of that optimisation, and their size in each coordinate
Shape = tuple[int, ...]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def jacobian_norm(module: nn.Module, x: Tensor) -> Tensor:
    """Largest singular value of the Jacobian at one input, given without a batch.

    The module must treat the samples of a batch one by one: each output is that of its own copy of
    the input, so that one backward pass gives all rows.
    """
    x = x.detach()
    count = module(x[None]).numel()
    copies = x.expand(count, *x.shape).clone().requires_grad_()
    with torch.enable_grad():
        diagonal = module(copies).reshape(count, -1).diagonal().sum()
    if not diagonal.requires_grad:
        return x.new_zeros(())
    (rows,) = torch.autograd.grad(diagonal, copies, materialize_grads=True)
    norm: Tensor = torch.linalg.matrix_norm(rows.reshape(count, -1), 2)
    return norm


def largest_stretch(module: nn.Module, input_shape: Shape, *, steps: int = _ASCENT) -> Tensor:
    """Largest ``|f(x) - f(y)| / |x - y|`` met in a gradient ascent from random pairs.

    The pairs have distances from 0.1 to 10 and keep them. Rounding can make the result too large by
    a few units in the last place.
    """
    points = torch.stack(inputs(input_shape, 2 * PAIRS).split(PAIRS)).requires_grad_()
    reach = torch.logspace(-1, 1, PAIRS, dtype=points.dtype)
    largest = torch.zeros((), dtype=points.dtype)
    for _ in range(steps + 1):
        stretch = _stretch(module, points[0], points[1], reach)
        largest = torch.maximum(largest, stretch.detach().amax())
        if not stretch.requires_grad:
            break
        (gradient,) = torch.autograd.grad(stretch.sum(), points)
        with torch.no_grad():
            # Signs alone find more in 15 steps than Adam in 25, and take half the time for each.
            points += _STEP * gradient.sign()
    return largest


def _stretch(module: nn.Module, x: Tensor, direction: Tensor, reach: Tensor) -> Tensor:
    """Stretch of pairs at fixed distances in given directions."""
    unit = direction.flatten(1) / direction.flatten(1).norm(dim=1, keepdim=True)
    # Fixed distances: the ascent cannot shrink a pair to where rounding dominates.
    y = x + (unit * reach[:, None]).view_as(x)
    there, here = module(torch.cat([y, x])).chunk(2)
    return lengths(there - here) / lengths(y - x)


def lengths(batch: Tensor) -> Tensor:
    """Norms per sample; the tiny number keeps the gradient at 0 finite."""
    # The root has no finite slope at 0.
    squares: Tensor = batch.flatten(1).square().sum(1)
    return (squares + 1e-300).sqrt()


def require_below(found: Tensor, allowed: Tensor, what: str, module: nn.Module) -> None:
    """Fail if a stretch is above the allowed bound."""
    message = f"{kind_of(module)}: {what} stretches by {float(found)}, bound {float(allowed)}"
    require(bool(found <= allowed), message)


def inputs(input_shape: Shape, count: int) -> Tensor:
    """Return the same random inputs each time, of lengths that differ by a factor of 100."""
    generator = torch.Generator().manual_seed(count + 1000 * math.prod(input_shape))
    # A generator of its own: the checks do not depend on what ran before.
    x = torch.randn(count, *input_shape, dtype=torch.float64, generator=generator)
    scale = torch.logspace(-1, 1, count, dtype=x.dtype) if count > 1 else torch.ones(1)
    return x * scale.to(x).view(-1, *(1,) * len(input_shape))


def filled(module: ModuleT, fill: Callable[[Tensor], Tensor]) -> ModuleT:
    """Return a copy whose parameters are overwritten."""
    changed = copy.deepcopy(module)
    with seeded(), torch.no_grad():
        for parameter in changed.parameters():
            parameter.copy_(fill(parameter))
    return changed


def normal(parameter: Tensor) -> Tensor:
    """Fill with standard normal numbers."""
    return torch.randn_like(parameter)


def _rank_one(parameter: Tensor) -> Tensor:
    """Fill with a random matrix of rank 1."""
    if parameter.ndim < 2:
        return torch.randn_like(parameter)
    rows, columns = parameter.flatten(1).shape
    return (torch.randn(rows, 1) * torch.randn(columns)).view_as(parameter)


FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "random": normal,
    "large": lambda parameter: 100 * torch.randn_like(parameter),
    "zero": torch.zeros_like,
    "rank 1": _rank_one,
}


@contextmanager
def seeded() -> Iterator[None]:
    """Fix the random numbers inside, and leave the generator outside untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed also records the call stack
        yield


def same_state(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    """Check whether two state dicts hold the same numbers."""
    return before.keys() == after.keys() and all(
        torch.equal(value, after[key]) for key, value in before.items()
    )


def kind_of(module: nn.Module) -> str:
    """Name of a module's class."""
    return type(module).__name__


def require(condition: bool, message: str) -> None:
    """Fail with a message unless a condition holds."""
    if not condition:
        raise AssertionError(message)
