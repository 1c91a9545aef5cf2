"""The contract of a Lipschitz module, as tests that any layer can be put to.

``check_layer`` runs them all. Each check works in float64 on a copy in eval mode, leaves the layer
alone and raises an ``AssertionError`` that says what was broken. A check can only refute: it
searches for inputs and weights that stretch more than the bound allows; finding none is no proof.

After its weights were overwritten, or training diverged, a layer may refuse to run or to state a
bound, with one of ``REFUSALS``; stating one that is too small it may not. ``check_potential`` does
the same for what a convex potential proves of its curvature.
"""

import copy
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import torch
from torch import Tensor, nn

from onelip.errors import NonFiniteError, NotApplicableError, UnboundedModuleError
from onelip.export import export
from onelip.flows.potential import Potential, curvature
from onelip.lipschitz import LipschitzModule, lipschitz_bound

REFUSALS = (UnboundedModuleError, NonFiniteError, NotApplicableError)

_PAIRS = 8  # pairs whose stretch is optimised at the same time
_ASCENT = 25  # steps of that optimisation
_LEARNING_RATE = 1e3  # large enough to throw any weight far from where it was

Shape = tuple[int, ...]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def check_layer(
    layer: nn.Module, input_shape: Shape, *, samples: int = 3, tolerance: float = 1e-9
) -> None:
    """Put a layer to the whole contract.

    Args:
        layer: a ``LipschitzModule``, or a module with a rule; it is copied, never changed.
        input_shape: shape of one input, without the batch.
        samples: random inputs at which the Jacobian is compared.
        tolerance: relative slack for the rounding of the measurement itself.

    Raises:
        AssertionError: a clause of the contract is broken; the message says which.
        UnboundedModuleError: the layer as given has no bound at all.

    Example:
        >>> check_layer(torch.nn.Linear(3, 2), (3,))
        >>> class Doubled(torch.nn.Linear): ...
        >>> check_layer(Doubled(3, 2), (3,))
        Traceback (most recent call last):
        onelip.errors.UnboundedModuleError: no Lipschitz bound is known for ...
    """
    check_query(layer)
    check_modes(layer)
    check_batch(layer, input_shape)
    check_stretch(layer, input_shape, samples=samples, tolerance=tolerance)
    check_copies(layer, input_shape)
    check_weights(layer, input_shape, tolerance=tolerance)
    check_training(layer, input_shape, tolerance=tolerance)
    check_export(layer, input_shape, samples=samples, tolerance=tolerance)
    check_gradient(layer, input_shape)


def check_query(layer: nn.Module) -> None:
    """The bound is a finite 0-d float64 tensor on the CPU, and asking for it changes nothing."""
    layer = _prepared(layer)
    before = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        own = layer.lipschitz_bound if isinstance(layer, LipschitzModule) else None
        first = own() if own else lipschitz_bound(layer)
    _require(isinstance(first, Tensor), f"the bound is a {type(first).__name__}, no tensor")
    seen = f"the bound has shape {tuple(first.shape)}, {first.dtype}, on {first.device}"
    plain = first.ndim == 0 and first.dtype == torch.float64 and first.device.type == "cpu"
    _require(plain, f"{seen}: 0-d, float64, on the CPU is asked")
    _require(bool(first.isfinite()) and bool(first >= 0), f"the bound is {float(first)}")
    _require(not first.requires_grad, "the bound carries a gradient")
    second = lipschitz_bound(layer)
    _require(torch.equal(first, second), f"asked twice: {float(first)}, then {float(second)}")
    _require(_same_state(before, layer.state_dict()), "asking for the bound changed the state")
    _require(not layer.training, "asking for the bound left eval mode")


def check_modes(layer: nn.Module) -> None:
    """Training mode alone, without a forward pass, leaves the bound as it is, or refuses it."""
    layer = _prepared(layer)
    evaluated = lipschitz_bound(layer)
    before = copy.deepcopy(layer.state_dict())
    trained = _bound_or_refusal(layer.train())
    again = lipschitz_bound(layer.eval())
    _require(_same_state(before, layer.state_dict()), "train() and eval() changed the state")
    for other in (again, evaluated if trained is None else trained):
        _require(
            torch.equal(evaluated, other),
            f"the bound is {float(evaluated)} in eval, {float(other)} after train()",
        )


def check_stretch(
    layer: nn.Module, input_shape: Shape, *, samples: int = 3, tolerance: float = 1e-9
) -> None:
    """No Jacobian at random inputs, and no pair of inputs found by search, exceeds the bound."""
    layer = _prepared(layer)
    _check_against(
        layer, lipschitz_bound(layer), input_shape, samples=samples, tolerance=tolerance, when=""
    )


def check_copies(layer: nn.Module, input_shape: Shape) -> None:
    """A deep copy and a state dict carry all that output and bound depend on."""
    layer = _prepared(layer)
    x, bound = _inputs(input_shape, 2), lipschitz_bound(layer)
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    loaded = _overwritten(layer, _normal)
    for buffer in loaded.buffers():
        buffer.zero_()
    loaded.load_state_dict(torch.load(stored, weights_only=True))
    with torch.no_grad():
        for name, other in (("deepcopy", copy.deepcopy(layer)), ("state dict", loaded)):
            found = lipschitz_bound(other)
            message = f"{name}: bound {float(found)} instead of {float(bound)}"
            _require(torch.equal(found, bound), message)
            _require(torch.equal(other(x), layer(x)), f"{name}: other outputs")


def check_weights(layer: nn.Module, input_shape: Shape, *, tolerance: float = 1e-9) -> None:
    """The bound follows the weights: random, large, zero and of rank 1, written in place."""
    layer = _prepared(layer)
    for name, fill in _FILLS.items():
        changed = _overwritten(layer, fill)
        bound = _bound_or_refusal(changed)
        if bound is not None:
            _check_against(
                changed,
                bound,
                input_shape,
                samples=1,
                tolerance=tolerance,
                when=f" with {name} weights",
            )


def check_training(layer: nn.Module, input_shape: Shape, *, tolerance: float = 1e-9) -> None:
    """The bound holds again after three steps of gradient descent at a huge learning rate."""
    layer = _prepared(layer)
    lipschitz_bound(layer)  # whatever is cached here must not outlive the steps
    with _seeded(), suppress(*REFUSALS):
        _descend(layer.train(), _inputs(input_shape, 4))
    bound = _bound_or_refusal(layer.eval())
    if bound is not None:
        _check_against(
            layer, bound, input_shape, samples=1, tolerance=tolerance, when=" after training steps"
        )


def check_export(
    layer: nn.Module, input_shape: Shape, *, samples: int = 3, tolerance: float = 1e-9
) -> None:
    """The exported module computes the same, or is bounded more tightly, and keeps its bound."""
    layer = _prepared(layer)
    before = copy.deepcopy(layer.state_dict())
    exported = export(layer)
    _require(_same_state(before, layer.state_dict()), "export changed the layer")
    _require(not exported.training, "the exported module is in training mode")
    fixed = not any(p.requires_grad for p in exported.parameters())
    _require(fixed, "the exported module has parameters that require a gradient")
    bound, original = lipschitz_bound(exported), lipschitz_bound(layer)
    x = _inputs(input_shape, 4)
    with torch.no_grad():
        same = torch.allclose(exported(x), layer(x), rtol=tolerance, atol=tolerance)
    _require(
        same or bool(bound <= original),
        f"export changed the outputs and raised the bound: {float(original)} to {float(bound)}",
    )
    _check_against(
        exported, bound, input_shape, samples=samples, tolerance=tolerance, when=" after export"
    )


def check_batch(layer: nn.Module, input_shape: Shape) -> None:
    """Each sample's output is that of the sample alone."""
    layer = _prepared(layer)
    x = _inputs(input_shape, 3)
    with torch.no_grad():
        together = layer(x)
        for i in range(len(x)):
            alone = layer(x[i : i + 1])
            same = torch.allclose(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)
            _require(same, f"sample {i} has another output in a batch than alone")


def check_gradient(layer: nn.Module, input_shape: Shape) -> None:
    """The gradient with respect to the input agrees with finite differences."""
    layer = _prepared(layer).requires_grad_(False)
    x = _inputs(input_shape, 1).requires_grad_()
    try:
        torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-5, rtol=1e-3)
    except RuntimeError as error:
        raise AssertionError(f"{_name(layer)}: wrong gradient: {error}") from error


def check_potential(potential: Potential, input_shape: Shape, *, tolerance: float = 1e-9) -> None:
    """Put a convex potential to what it says of itself, with its own weights and with others.

    Its gradient must be that of its value, or at least have a symmetric Jacobian, sample by sample;
    pairs of inputs are searched at which the gradient changes by more than ``smoothness()`` or less
    than ``convexity()`` allows, and a closed form of the proximal step must solve its equation, for
    short and long steps. Without a smoothness, a narrow spot that is not convex may be missed.

    Args:
        potential: it is copied, never changed.
        input_shape: shape of one input, without the batch.
        tolerance: relative slack for the rounding of the measurement itself.

    Raises:
        AssertionError: a claim is refuted; the message says which.
        UnboundedModuleError: what it claims is no interval, or is inherited.

    Example:
        >>> from onelip.flows import RidgeLinear
        >>> check_potential(RidgeLinear(3, 5), (3,))
    """
    potential = copy.deepcopy(potential).to("cpu", torch.float64)
    before = copy.deepcopy(potential.state_dict())
    low, high = curvature(potential)
    unchanged = _same_state(before, potential.state_dict())
    _require(unchanged, "asking for the curvature changed the state")
    _check_value(potential, _inputs(input_shape, 6), tolerance)
    _check_curvature(potential, input_shape, tolerance, "")
    for name, fill in _FILLS.items():
        changed = _filled(potential, fill)
        with suppress(*REFUSALS):
            _check_curvature(changed, input_shape, tolerance, f" with {name} weights")
    _require(curvature(potential) == (low, high), "asked twice, the curvature differs")


def _check_value(potential: Potential, x: Tensor, tolerance: float) -> None:
    """The gradient is the derivative of the value, and no sample depends on another."""
    gradient = potential.gradient(x).detach()
    for i in range(len(x)):
        alone = potential.gradient(x[i : i + 1])[0]
        same = torch.allclose(alone, gradient[i], rtol=1e-9, atol=1e-9)
        _require(same, f"sample {i} has another gradient in a batch than alone")
    _check_symmetry(potential, x)
    with suppress(NotApplicableError):  # some values have no closed form
        derivative = Potential.gradient(potential, x)
        same = torch.allclose(derivative, gradient, rtol=tolerance, atol=tolerance)
        _require(same, "gradient() is not the derivative of forward()")


def _check_symmetry(potential: Potential, x: Tensor) -> None:
    """The Jacobian J of a gradient is symmetric: ``u.Jv = v.Ju``."""
    u, v = _inputs((2, *x.shape), 1)[0]
    point = x.clone().requires_grad_()
    gradient = potential.gradient(point)
    if not gradient.requires_grad:
        return
    to_u, to_v = (
        torch.autograd.grad(gradient, point, way, retain_graph=True, allow_unused=True)[0]
        for way in (u, v)
    )
    if to_u is None or to_v is None:
        return
    gap = (to_u * v - to_v * u).flatten(1).sum(1).abs()
    size = (_lengths(to_u) * _lengths(v) + _lengths(to_v) * _lengths(u)).clamp(min=1)
    _require(bool((gap <= 1e-6 * size).all()), "gradient() has no symmetric Jacobian")


def _check_proximal(potential: Potential, x: Tensor, when: str) -> None:
    for step in (1e-2, 0.7, 30.0):
        _check_proximal_step(potential, x, torch.tensor(step, dtype=x.dtype), when)


@torch.no_grad()
def _check_proximal_step(potential: Potential, x: Tensor, step: Tensor, when: str) -> None:
    """Around the minimiser, a 1-convex function grows at least as half the squared distance."""

    def objective(y: Tensor) -> Tensor:
        value: Tensor = potential(y)
        return (y - x).square().flatten(1).sum(1) / 2 + step * value

    best = potential.proximal(x, step)
    for away in 0.1 * _inputs(tuple(x.shape), 16):
        growth = objective(best + away) - objective(best)
        least = away.square().flatten(1).sum(1) / 2
        slack = 1e-9 * (1 + least + objective(best).abs())
        solved = bool((growth >= least - slack).all())
        _require(solved, f"proximal() is not the minimiser at step {float(step)}{when}")


def _check_curvature(potential: Potential, input_shape: Shape, tolerance: float, when: str) -> None:
    """The gradient changes by no more than L and no less than mu."""
    low, high = curvature(potential.requires_grad_(False))
    x, z = _inputs(input_shape, 2 * _PAIRS).split(_PAIRS)
    change = ((potential.gradient(x) - potential.gradient(z)) * (x - z)).flatten(1).sum(1)
    slack = tolerance * (1 + high.clamp(max=1e3)) * _lengths(x - z)
    curved = bool((change >= low * _lengths(x - z).square() - slack).all())
    _require(curved, f"{_name(potential)} is less convex than {float(low)}{when}")
    if potential.has_proximal:
        with suppress(NotApplicableError):  # values without a closed form
            _check_proximal(potential, x, when)
    if high.isfinite():
        found = largest_stretch(_Step(potential, None), input_shape)
        allowed = high * (1 + tolerance) + 1e-140
        _require_below(found, allowed, f"the gradient{when}", potential)
        reach = torch.where(high > 0, high, 1.0)
        found = largest_stretch(_Step(potential, reach), input_shape)
        allowed = 1 - low / reach + tolerance
        _require_below(found, allowed, f"not convex enough{when}: x - grad f(x) / L", potential)


class _Step(nn.Module):
    """The gradient of a potential, or ``x - grad f(x) / reach``."""

    def __init__(self, potential: Potential, reach: Tensor | None) -> None:
        super().__init__()
        self.potential, self.reach = potential, reach

    def forward(self, x: Tensor) -> Tensor:
        gradient = self.potential.gradient(x)
        return gradient if self.reach is None else x - gradient / self.reach


def jacobian_norm(module: nn.Module, x: Tensor) -> Tensor:
    """The largest singular value of the Jacobian at one input, given without a batch."""

    def flat(v: Tensor) -> Tensor:
        y: Tensor = module(v[None])
        return y.flatten()

    jacobian: Tensor = torch.autograd.functional.jacobian(flat, x)
    norm: Tensor = torch.linalg.matrix_norm(jacobian.reshape(len(jacobian), -1), 2)
    return norm


def largest_stretch(module: nn.Module, input_shape: Shape, *, steps: int = _ASCENT) -> Tensor:
    """The largest ``|f(x) - f(y)| / |x - y|`` met in a gradient ascent from random pairs.

    The pairs have distances from 0.1 to 10 and keep them. Rounding can make the result too large by
    a few units in the last place.
    """
    x, direction = _inputs(input_shape, 2 * _PAIRS).split(_PAIRS)
    reach = torch.logspace(-1, 1, _PAIRS, dtype=x.dtype)
    x, direction = x.clone().requires_grad_(), direction.clone().requires_grad_()
    optimizer = torch.optim.Adam([x, direction], lr=0.1)
    largest = torch.zeros((), dtype=x.dtype)
    for _ in range(steps + 1):
        stretch = _stretch(module, x, direction, reach)
        largest = torch.maximum(largest, stretch.detach().amax())
        if not stretch.requires_grad:
            break
        optimizer.zero_grad()
        (-stretch.sum()).backward()
        optimizer.step()
    return largest


def _stretch(module: nn.Module, x: Tensor, direction: Tensor, reach: Tensor) -> Tensor:
    unit = direction.flatten(1) / direction.flatten(1).norm(dim=1, keepdim=True)
    y = x + (unit * reach[:, None]).view_as(x)
    difference: Tensor = module(y) - module(x)
    return _lengths(difference) / _lengths(y - x)


def _lengths(batch: Tensor) -> Tensor:
    """Norms per sample; the tiny number keeps the gradient at 0 finite."""
    squares: Tensor = batch.flatten(1).square().sum(1)
    return (squares + 1e-300).sqrt()


def _check_against(
    module: nn.Module,
    bound: Tensor,
    input_shape: Shape,
    *,
    samples: int,
    tolerance: float,
    when: str,
) -> None:
    allowed = bound * (1 + tolerance) + 1e-140  # the second for lengths of 1e-150, see _lengths
    module.requires_grad_(False)
    for x in _inputs(input_shape, samples):
        _require_below(jacobian_norm(module, x), allowed, f"a Jacobian{when}", module)
    _require_below(largest_stretch(module, input_shape), allowed, f"a pair{when}", module)


def _require_below(found: Tensor, allowed: Tensor, what: str, module: nn.Module) -> None:
    message = f"{_name(module)}: {what} stretches by {float(found)}, bound {float(allowed)}"
    _require(bool(found <= allowed), message)


def _prepared(layer: nn.Module) -> nn.Module:
    return copy.deepcopy(layer).to("cpu", torch.float64).eval()


def _inputs(input_shape: Shape, count: int) -> Tensor:
    """The same random inputs each time, of lengths that differ by a factor of 100."""
    generator = torch.Generator().manual_seed(count + 1000 * math.prod(input_shape))
    x = torch.randn(count, *input_shape, dtype=torch.float64, generator=generator)
    scale = torch.logspace(-1, 1, count, dtype=x.dtype) if count > 1 else torch.ones(1)
    return x * scale.to(x).view(-1, *(1,) * len(input_shape))


def _bound_or_refusal(layer: nn.Module) -> Tensor | None:
    try:
        return lipschitz_bound(layer)
    except REFUSALS:
        return None


def _descend(layer: nn.Module, x: Tensor) -> None:
    optimizer = torch.optim.SGD([*layer.parameters()] or [torch.zeros(1)], lr=_LEARNING_RATE)
    for _ in range(3):
        y = layer(x)
        loss = (y * torch.randn_like(y)).sum()
        if loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _overwritten(layer: nn.Module, fill: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy that was asked for its bound before all its parameters were written over."""
    asked = copy.deepcopy(layer)
    lipschitz_bound(asked)
    return _filled(asked, fill)


def _filled(module: ModuleT, fill: Callable[[Tensor], Tensor]) -> ModuleT:
    changed = copy.deepcopy(module)
    with _seeded(), torch.no_grad():
        for parameter in changed.parameters():
            parameter.copy_(fill(parameter))
    return changed


def _normal(parameter: Tensor) -> Tensor:
    return torch.randn_like(parameter)


def _rank_one(parameter: Tensor) -> Tensor:
    if parameter.ndim < 2:
        return torch.randn_like(parameter)
    rows, columns = parameter.flatten(1).shape
    return (torch.randn(rows, 1) * torch.randn(columns)).view_as(parameter)


_FILLS: dict[str, Callable[[Tensor], Tensor]] = {
    "random": _normal,
    "large": lambda parameter: 100 * torch.randn_like(parameter),
    "zero": torch.zeros_like,
    "rank 1": _rank_one,
}


@contextmanager
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _same_state(before: dict[str, Tensor], after: dict[str, Tensor]) -> bool:
    return before.keys() == after.keys() and all(
        torch.equal(value, after[key]) for key, value in before.items()
    )


def _name(module: nn.Module) -> str:
    return type(module).__name__


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
