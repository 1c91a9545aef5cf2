"""Checks of a layer against the contract of a Lipschitz module."""

import copy
import io
from contextlib import suppress

import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.bounds import Product
from onelip.lipschitz import LipschitzModule, lipschitz_bound
from onelip.reading import read
from onelip.testing.searching import (
    FILLS,
    REFUSALS,
    Shape,
    filled,
    inputs,
    jacobian_norm,
    kind_of,
    largest_stretch,
    normal,
    require,
    require_below,
    same_state,
    seeded,
)

_LEARNING_RATE = 1e3  # large enough to throw any weight far from where it was
_SHORTENED = 1e-6  # by which an export may be shorter, so that a second proof succeeds


def check_layer(
    layer: nn.Module, input_shape: Shape, *, samples: int = 3, tolerance: float = 1e-9
) -> None:
    """Check the whole contract of a layer.

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
    check_reading(layer, input_shape, tolerance=tolerance)
    check_gradient(layer, input_shape)


def check_query(layer: nn.Module) -> None:
    """Check that the bound is a finite 0-d float64 CPU tensor, and that asking changes nothing."""
    layer = _prepared(layer)
    before = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        own = layer.lipschitz_bound if isinstance(layer, LipschitzModule) else None
        first = own() if own else lipschitz_bound(layer)
    require(isinstance(first, Tensor), f"the bound is a {type(first).__name__}, no tensor")
    seen = f"the bound has shape {tuple(first.shape)}, {first.dtype}, on {first.device}"
    plain = first.ndim == 0 and first.dtype == torch.float64 and first.device.type == "cpu"
    require(plain, f"{seen}: 0-d, float64, on the CPU is asked")
    require(bool(first.isfinite()) and bool(first >= 0), f"the bound is {float(first)}")
    require(not first.requires_grad, "the bound carries a gradient")
    second = lipschitz_bound(layer)
    require(torch.equal(first, second), f"asked twice: {float(first)}, then {float(second)}")
    require(same_state(before, layer.state_dict()), "asking for the bound changed the state")
    require(not layer.training, "asking for the bound left eval mode")


def check_modes(layer: nn.Module) -> None:
    """Check that training mode alone, without a forward pass, keeps the bound or refuses it."""
    layer = _prepared(layer)
    evaluated = lipschitz_bound(layer)
    before = copy.deepcopy(layer.state_dict())
    trained = _bound_or_refusal(layer.train())
    again = lipschitz_bound(layer.eval())
    require(same_state(before, layer.state_dict()), "train() and eval() changed the state")
    for other in (again, evaluated if trained is None else trained):
        require(
            torch.equal(evaluated, other),
            f"the bound is {float(evaluated)} in eval, {float(other)} after train()",
        )


def check_stretch(
    layer: nn.Module, input_shape: Shape, *, samples: int = 3, tolerance: float = 1e-9
) -> None:
    """Check the bound against Jacobians at random inputs, and pairs found by search."""
    layer = _prepared(layer)
    _check_against(
        layer, lipschitz_bound(layer), input_shape, samples=samples, tolerance=tolerance, when=""
    )


def check_copies(layer: nn.Module, input_shape: Shape) -> None:
    """Check that a deep copy and a state dict carry all that output and bound depend on."""
    layer = _prepared(layer)
    x, bound = inputs(input_shape, 2), lipschitz_bound(layer)
    stored = io.BytesIO()
    torch.save(layer.state_dict(), stored)
    stored.seek(0)
    loaded = filled(layer, normal)
    for buffer in loaded.buffers():
        buffer.zero_()
    loaded.load_state_dict(torch.load(stored, weights_only=True))
    with torch.no_grad():
        for name, other in (("deepcopy", copy.deepcopy(layer)), ("state dict", loaded)):
            found = lipschitz_bound(other)
            message = f"{name}: bound {float(found)} instead of {float(bound)}"
            require(torch.equal(found, bound), message)
            require(torch.equal(other(x), layer(x)), f"{name}: other outputs")


def check_weights(layer: nn.Module, input_shape: Shape, *, tolerance: float = 1e-9) -> None:
    """Check that the bound follows the weights: random, large, zero, rank 1, written in place."""
    layer = _prepared(layer)
    lipschitz_bound(layer)  # whatever is cached here must not outlive the weights
    for name, fill in FILLS.items():
        changed = filled(layer, fill)
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
    """Check the bound after three steps of gradient descent at a huge learning rate."""
    layer = _prepared(layer)
    lipschitz_bound(layer)  # whatever is cached here must not outlive the steps
    with seeded(), suppress(*REFUSALS):
        _descend(layer.train(), inputs(input_shape, 4))
    bound = _bound_or_refusal(layer.eval())
    if bound is not None:
        _check_against(
            layer, bound, input_shape, samples=1, tolerance=tolerance, when=" after training steps"
        )


def check_export(
    layer: nn.Module, input_shape: Shape, *, samples: int = 3, tolerance: float = 1e-9
) -> None:
    """Check that the export computes the same, or is bounded more tightly, and keeps its bound."""
    layer = _prepared(layer)
    before = copy.deepcopy(layer.state_dict())
    exported = export(layer)
    require(same_state(before, layer.state_dict()), "export changed the layer")
    require(not exported.training, "the exported module is in training mode")
    fixed = not any(p.requires_grad for p in exported.parameters())
    require(fixed, "the exported module has parameters that require a gradient")
    bound, original = lipschitz_bound(exported), lipschitz_bound(layer)
    x = inputs(input_shape, 4)
    with torch.no_grad():
        same = torch.allclose(exported(x), layer(x), rtol=_SHORTENED, atol=_SHORTENED)
    keeps = not isinstance(layer, LipschitzModule) or layer.export_keeps_function
    require(
        same or bool(bound < original) or not keeps,
        f"export changed the outputs, and the bound from {float(original)} to {float(bound)}",
    )
    _check_against(
        exported, bound, input_shape, samples=samples, tolerance=tolerance, when=" after export"
    )


def check_reading(layer: nn.Module, input_shape: Shape, *, tolerance: float = 1e-9) -> None:
    """Check that the layer's chain computes the same, and is bounded."""
    for module, when in ((_prepared(layer), ""), (export(_prepared(layer)), " after export")):
        chain = read(module, input_shape).exact()
        x = inputs(input_shape, 4)
        with torch.no_grad():
            seen, outputs = chain.forward(x), module(x)
        same = torch.allclose(seen, outputs, rtol=tolerance, atol=tolerance)
        require(seen.shape == outputs.shape and same, f"read as another function{when}")
        module.requires_grad_(False)
        allowed = Product().bound(chain) * (1 + tolerance) + 1e-140
        for sample in inputs(input_shape, 2):
            found = jacobian_norm(module, sample)
            require_below(found, allowed, f"a Jacobian{when}, read as a chain,", module)


def check_batch(layer: nn.Module, input_shape: Shape) -> None:
    """Check that each sample's output is that of the sample alone."""
    layer = _prepared(layer)
    x = inputs(input_shape, 3)
    with torch.no_grad():
        together = layer(x)
        for i in range(len(x)):
            alone = layer(x[i : i + 1])
            same = torch.allclose(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)
            require(same, f"sample {i} has another output in a batch than alone")


def check_gradient(layer: nn.Module, input_shape: Shape) -> None:
    """Compare the gradient with respect to the input with finite differences."""
    layer = _prepared(layer).requires_grad_(False)
    x = inputs(input_shape, 1).requires_grad_()
    try:
        torch.autograd.gradcheck(layer, (x,), eps=1e-6, atol=1e-5, rtol=1e-3)
    except RuntimeError as error:
        raise AssertionError(f"{kind_of(layer)}: wrong gradient: {error}") from error


def _check_against(
    module: nn.Module,
    bound: Tensor,
    input_shape: Shape,
    *,
    samples: int,
    tolerance: float,
    when: str,
) -> None:
    allowed = bound * (1 + tolerance) + 1e-140  # the second for lengths of 1e-150, see lengths
    module.requires_grad_(False)
    for x in inputs(input_shape, samples):
        require_below(jacobian_norm(module, x), allowed, f"a Jacobian{when}", module)
    require_below(largest_stretch(module, input_shape), allowed, f"a pair{when}", module)


def _prepared(layer: nn.Module) -> nn.Module:
    return copy.deepcopy(layer).to("cpu", torch.float64).eval()


def _bound_or_refusal(layer: nn.Module) -> Tensor | None:
    try:
        return lipschitz_bound(layer)
    except REFUSALS:
        return None


def _descend(layer: nn.Module, x: Tensor) -> None:
    # A random linear loss: no direction of the weights is spared.
    optimizer = torch.optim.SGD([*layer.parameters()] or [torch.zeros(1)], lr=_LEARNING_RATE)
    for _ in range(3):
        y = layer(x)
        loss = (y * torch.randn_like(y)).sum()
        if loss.requires_grad:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
