"""Parameters of published residual layers and skew convolutions, by the names of their checkpoints.

Each layout has a formula of the published layer in eval mode, against which the loaded layer is
compared.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.errors import UsageError
from onelip.layers.convex_potential import ConvexPotentialConv2d, ConvexPotentialLinear
from onelip.layers.sll import SLLConv2d, SLLLinear
from onelip.layers.soc import SOCConv2d

State = Mapping[str, Tensor]

_STEPS = 500  # power iterations after loading


class Layout(NamedTuple):
    """One layout: names, how they fill a layer, and what the published layer computes."""

    keys: frozenset[str]
    fill: Callable[[Any, State], None]
    published: Callable[[Any, State, Tensor], Tensor]


def layout_of(layer: nn.Module, state: State) -> Layout:
    """Return the layout of a layer's published checkpoint.

    Raises:
        UsageError: a layer without one, or a state that lacks some of its names.
    """
    layout = LAYOUTS.get(type(layer))
    if layout is None:
        known = ", ".join(sorted(kind.__name__ for kind in LAYOUTS))
        raise UsageError(f"no published layout for {type(layer).__name__}: there is one of {known}")
    missing = layout.keys - state.keys()
    if missing:
        raise UsageError(
            f"a checkpoint of {type(layer).__name__} has {', '.join(sorted(layout.keys))}; "
            f"missing: {', '.join(sorted(missing))}"
        )
    return layout


def _copy(target: Tensor, source: Tensor) -> None:
    """Copy numbers whose shape is equal up to axes of length 1 at the ends."""
    if target.numel() != source.numel():
        raise UsageError(
            f"a parameter of shape {tuple(target.shape)} cannot take {tuple(source.shape)}"
        )
    with torch.no_grad():
        target.copy_(source.reshape(target.shape))


def _weight(state: State) -> Tensor:
    return state["kernel"] if "kernel" in state else state["weights"]


def _fill_sll(layer: Any, state: State) -> None:
    _copy(layer.weight, _weight(state))
    _copy(layer.bias, state["bias"])
    # the published code scales by q and 1 / q along the same axis, so that q has no effect
    nn.init.zeros_(layer.log_q)


def _gradient_step(layer: Any, state: State, x: Tensor, scale: Tensor) -> Tensor:
    """Return ``x - W^T (scale * activation(W x + b))``."""
    weight, bias = _weight(state), state["bias"].flatten()
    if weight.ndim == 2:
        hidden: Tensor = layer.activation(F.linear(x, weight, bias))
        return x - (scale * hidden) @ weight
    padding = weight.shape[-1] // 2
    hidden = layer.activation(F.conv2d(x, weight, bias, padding=padding))
    return x - F.conv_transpose2d(scale.view(-1, 1, 1) * hidden, weight, padding=padding)


def _published_sll(layer: Any, state: State, x: Tensor) -> Tensor:
    weight = _weight(state)
    if weight.ndim == 2:
        sums = (weight @ weight.T).abs().sum(1)
    else:
        sums = F.conv2d(weight, weight, padding=weight.shape[-1] - 1).abs().sum((1, 2, 3))
    return _gradient_step(layer, state, x, 2 / sums)


def _fill_potential(layer: Any, state: State) -> None:
    _copy(layer.weight, _weight(state))
    _copy(layer.bias, state["bias"])
    layer.power_step(_STEPS)


def _published_potential(layer: Any, state: State, x: Tensor) -> Tensor:
    weight = _weight(state)
    stored = state.get("eval_sv_max")
    if stored is not None and float(stored) > 0:
        sigma = stored.flatten()[0]
    elif weight.ndim == 2:
        sigma = torch.linalg.matrix_norm(weight, 2)
    else:
        sigma = _norm_on(x[:1], weight)
    return _gradient_step(layer, state, x, (2 / sigma.square()).expand(len(weight)))


def _norm_on(image: Tensor, weight: Tensor) -> Tensor:
    """Estimate of the norm of a zero-padded convolution on images of this size."""
    padding = weight.shape[-1] // 2
    image = torch.ones_like(image) + image
    for _ in range(_STEPS):
        image = image / torch.linalg.vector_norm(image)
        image = F.conv_transpose2d(
            F.conv2d(image, weight, padding=padding), weight, padding=padding
        )
    gained: Tensor = torch.linalg.vector_norm(image)  # by W^T W, from length 1
    return gained.sqrt()


def _fill_soc(layer: Any, state: State) -> None:
    _copy(layer.raw_weight, state["random_conv_filter"])
    if layer.bias is not None:
        _copy(layer.bias, state["bias"])
    if "correction" in state:
        layer.correction = float(state["correction"])
    layer.power_steps([layer], _STEPS)


def _published_soc(layer: Any, state: State, x: Tensor) -> Tensor:
    """Series of the kernel divided by the least of the norms of its numbers as a matrix."""
    raw = layer.raw_weight.detach()
    if layer.groups != 1 or raw.shape[-1] % 2 == 0:
        raise UsageError("checkpoints of SOC are taken for odd kernels without groups")
    skew = (raw - raw.flip(2, 3).transpose(0, 1)) / 2
    views = [skew.flatten(1), skew.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)]
    sigma = torch.stack([torch.linalg.matrix_norm(view, 2) for view in views]).min()
    kernel = layer.correction * skew / sigma
    if layer.stride > 1:
        x = F.pixel_unshuffle(x, layer.stride)
    term = F.pad(x, (0, 0, 0, 0, 0, layer.channels - x.shape[1]))
    total, padding = term, kernel.shape[-1] // 2
    for power in range(1, layer.terms):  # the published count leaves out the first of these
        term = F.conv2d(term, kernel, padding=padding) / power
        total = total + term
    out: Tensor = total[:, : layer.out_channels]
    return out if layer.bias is None else out + state["bias"].view(-1, 1, 1)


LAYOUTS: dict[type[nn.Module], Layout] = {
    SLLConv2d: Layout(frozenset({"kernel", "bias", "q"}), _fill_sll, _published_sll),
    SLLLinear: Layout(frozenset({"weights", "bias", "q"}), _fill_sll, _published_sll),
    ConvexPotentialConv2d: Layout(
        frozenset({"kernel", "bias"}), _fill_potential, _published_potential
    ),
    ConvexPotentialLinear: Layout(
        frozenset({"weights", "bias"}), _fill_potential, _published_potential
    ),
    SOCConv2d: Layout(frozenset({"random_conv_filter"}), _fill_soc, _published_soc),
}
"""Published layouts, by the layer that takes them."""
