"""How onelip's layers with a hidden layer are read: gradient steps and sandwiches.

They keep the constant that they prove of themselves, which no bound of the sum of two ways, or of
the product of two maps, would find.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from onelip.chains import LinearMap
from onelip.chains.linear_layers import convolution, dense, scaled
from onelip.chains.value import Value
from onelip.layers import (
    ConvexPotentialConv2d,
    ConvexPotentialLinear,
    GradientStep,
    Sandwich,
    SandwichLinear,
    SLLConv2d,
    SLLLinear,
)
from onelip.layers.convex_potential import ConvexPotential
from onelip.layers.gradient_step import mirrored
from onelip.layers.sll import SLL
from onelip.lipschitz import lipschitz_bound
from onelip.norms.rounding import product
from onelip.reading.graphs.branches import norm_bound
from onelip.reading.modules import reader
from onelip.reading.own_layers import check_image
from onelip.reading.torch_layers import activation, sides_of


@reader(ConvexPotentialLinear, ConvexPotentialConv2d)
def _convex_potential(module: ConvexPotential, value: Value) -> Value:
    return _gradient_step(module, value, module.weight, module.bias, module.step())


@reader(SLLLinear, SLLConv2d)
def _sll(module: SLL, value: Value) -> Value:
    weight, bias = module.rows()
    return _gradient_step(module, value, weight, bias, weight.new_ones(()))


@reader(GradientStep)
def _exported_step(module: GradientStep, value: Value) -> Value:
    inner = module.inner
    step = inner.weight.new_ones(()) if module.step is None else module.step
    return _gradient_step(module, value, inner.weight, inner.bias, step)


def _gradient_step(
    module: ConvexPotential | SLL | GradientStep,
    value: Value,
    weight: Tensor,
    bias: Tensor | None,
    step: Tensor,
) -> Value:
    """``x - step W^T activation(W x + b)``."""
    check_image(value, module.image_size, (1, 1), module.padding_mode)
    hidden = _linear(value, weight, bias, module.padding_mode)
    adjoint = _linear(
        scaled(Value.entering(hidden.shape, weight), -step),
        mirrored(weight),
        None,
        module.padding_mode,
    )
    return _proved(module, value, hidden, adjoint.linear, value.linear)


def _linear(value: Value, weight: Tensor, bias: Tensor | None, padding_mode: str) -> Value:
    if weight.ndim == 2:
        return dense(value, weight, bias)
    sides = sides_of(weight, weight.shape[-1] // 2, (1, 1))
    return convolution(value, weight, bias, sides=sides, circular=padding_mode == "circular")


@reader(Sandwich)
def _sandwich(module: Sandwich, value: Value) -> Value:
    hidden = dense(value, module.inner.weight, module.inner.bias)
    outer = dense(Value.entering(hidden.shape, value.point.like), module.outer.weight, None)
    return _proved(module, value, hidden, outer.linear, None)


@reader(SandwichLinear)
def _sandwich_linear(module: SandwichLinear, value: Value) -> Value:
    weight, outer, _ = module.maps()
    hidden = dense(value, weight, module.bias)
    behind = dense(Value.entering(hidden.shape, value.point.like), outer, None)
    return _proved(module, value, hidden, behind.linear, None)


def _proved(
    module: Any,
    value: Value,
    hidden: Value,
    outer: LinearMap,
    skip: LinearMap | None,
) -> Value:
    """A block with the constant that its layer proves, times that of the map in front of it."""
    constant = product([lipschitz_bound(module), norm_bound(value.linear)])
    plain = activation(module.activation, hidden).point.block
    assert plain is not None
    return value.behind(replace(plain, outer=outer, skip=skip, constant=float(constant)))
