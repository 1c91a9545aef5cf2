"""Conversion of networks and checkpoints of other libraries to layers that train on."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm

from onelip._export import copy_of, export
from onelip.chains.value import like_of
from onelip.errors import OnelipError, UnboundedModuleError, UsageError
from onelip.foreign.checked_inputs import HalvesHouseHolder
from onelip.foreign.published_states import layout_of
from onelip.layers._bjorck import CholeskyLinear
from onelip.layers.fixed_conv import FixedConv2d
from onelip.layers.group_sort import GroupSort
from onelip.layers.rko import RKOConv2d
from onelip.layers.unit_norm_linear import UnitNormLinear
from onelip.lipschitz import LipschitzModule, has_unknown_class
from onelip.norms.convolutions import pair
from onelip.norms.windows import overlap_of_maxima
from onelip.parametrize import lipschitz

_TOLERANCE = 1e-4  # of the largest output: their iterations end early
_LIBRARIES = ("deel", "orthogonium")
_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)
_UNIT_ROWS = ("UnitNormLinear", "FrobeniusLinear")


@dataclass(frozen=True)
class Conversion:
    """A converted network, and what became of its layers."""

    model: nn.Module
    """In the mode of the original, with parameters of its own."""
    layers: dict[str, str]
    """For each layer of another library, by its name in the model: what stands in its place."""


@torch.no_grad()
def convert(
    model: nn.Module | Mapping[str, Tensor],
    input_shape: tuple[int, ...],
    *,
    into: nn.Module | None = None,
) -> Conversion:
    """Convert a network of another library, or the checkpoint of a layer, to layers of this one.

    Layers of deel-torchlip and orthogonium, and layers of torch under ``spectral_norm`` (either of
    torch's) or ``orthogonal``, are replaced by layers with the same weight in use, which train on
    under a constraint:

    * dense and orthogonal: ``layers.CholeskyLinear``; with rows of length 1: ``UnitNormLinear``;
    * a kernel that is orthogonal as a matrix: ``layers.RKOConv2d``;
    * any other weight: torch's layer under ``parametrize.lipschitz``, at the norm that it has. So
      the bound stays, and orthogonality of a kernel is not kept in further training;
    * what has neither, such as statistics of centerings: fixed, as ``onelip.export`` makes it.

    A state dict fills ``into``, one layer of ``layers``: ``SLLConv2d``, ``SLLLinear``,
    ``ConvexPotentialConv2d``, ``ConvexPotentialLinear`` and ``SOCConv2d`` have published layouts.

    Each layer is compared with what it stands for on random inputs before anything is returned.

    Cost: an export, and two forward passes of 16 inputs.

    Args:
        model: a network, or the state dict of a single layer.
        input_shape: shape of one input, without the batch.
        into: the layer that takes a state dict; it is left alone.

    Returns:
        The network, and for each converted layer what became of it. ``model`` is left alone.

    Raises:
        UnboundedModuleError: a layer that nothing is known of, or one whose outputs would differ;
            the message names it.
        UsageError: a state dict without ``into``, or with other names than the layer's layout.

    Example:
        >>> net = nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)), nn.ReLU())
        >>> convert(net, (4,)).layers
        {'0': 'CholeskyLinear'}
    """
    if not isinstance(model, nn.Module):
        return _from_state(model, input_shape, into)
    if into is not None:
        raise UsageError("into= takes a state dict; a network is converted without it")
    original = copy_of(model).eval()
    x = _samples(original, input_shape)
    inputs, expected = _traced(original, x)
    notes: dict[str, str] = {}
    converted = _converted(original, "", inputs, notes, {})
    _compare("the network", converted.eval()(x), expected)
    return Conversion(converted.train(model.training), notes)


def _samples(model: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return 16 normal inputs, the same in each call, of the parameters' dtype and device."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, *shape, generator=generator, dtype=torch.float64).to(like_of(model))


def _traced(model: nn.Module, x: Tensor) -> tuple[dict[int, Tensor], Tensor]:
    """Return the first input of each module, by its identity, and the output."""
    inputs: dict[int, Tensor] = {}

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        if len(args) == 1 and isinstance(args[0], Tensor):
            inputs.setdefault(id(module), args[0].detach().clone())

    handles = [part.register_forward_pre_hook(keep) for part in model.modules()]
    try:
        output = model(x)
    finally:
        for handle in handles:
            handle.remove()
    return inputs, output


def _library(module: nn.Module) -> str | None:
    """Return the library that a layer comes from, if it is one of those that are converted."""
    kind = type_before_parametrizations(module)
    root = kind.__module__.split(".")[0]
    return root if root in _LIBRARIES else None


def _constrained_by_torch(module: nn.Module) -> bool:
    old = any(isinstance(hook, SpectralNorm) for hook in module._forward_pre_hooks.values())
    return type_before_parametrizations(module) in _PLAIN and (old or is_parametrized(module))


def _converted(
    module: nn.Module,
    name: str,
    inputs: dict[int, Tensor],
    notes: dict[str, str],
    done: dict[int, nn.Module],
) -> nn.Module:
    """Return a module with its layers replaced, in eval mode; one that occurs twice does so again.

    Args:
        module: a part of a copy of the network, which is changed.
        name: of the part in the network.
        inputs: first inputs, by the identity of the part.
        notes: what became of the layers, which is added to.
        done: parts that are replaced already, by the identity of the original.
    """
    if id(module) in done:
        return done[id(module)]
    kind = type_before_parametrizations(module)
    result = module
    sequential = isinstance(module, nn.Sequential) and _library(module) is not None
    if sequential or not (
        isinstance(module, LipschitzModule) or _library(module) or _constrained_by_torch(module)
    ):
        # a Sequential of deel-torchlip computes the same as torch's
        result = nn.Sequential() if sequential else module
        for key, part in list(module._modules.items()):
            if part is not None:
                whole = f"{name}.{key}".lstrip(".")
                result._modules[key] = _converted(part, whole, inputs, notes, done)
    elif not isinstance(module, LipschitzModule):
        result = _replaced(module, name or kind.__name__, inputs, notes)
    done[id(module)] = result
    return result


def _replaced(
    module: nn.Module, name: str, inputs: dict[int, Tensor], notes: dict[str, str]
) -> nn.Module:
    """Return the first layer of ours that computes the same as a layer on its input."""
    if id(module) not in inputs:
        raise UnboundedModuleError(f"{name}: {type(module).__name__} got no input to compare on")
    x = inputs[id(module)]
    expected = module(x)
    try:
        fixed = _fixed(module)
    except OnelipError as error:
        raise UnboundedModuleError(f"{name}: {error}") from error
    if has_unknown_class(fixed):
        raise UnboundedModuleError(
            f"{name}: nothing is known of {type(module).__name__}; leave it out, or give it a "
            "record (docs/add-a-layer.md)"
        )
    _compare(name, fixed(x), expected)
    for candidate, note in _candidates(module, fixed):
        if _equal(candidate.eval()(x), expected):
            notes[name] = note
            return candidate.requires_grad_(True)
    notes[name] = f"{type(fixed).__name__}, fixed"
    return fixed


def _fixed(module: nn.Module) -> nn.Module:
    """Return the layer as ``export`` makes it, without torch's old spectral normalisation."""
    hooks = module._forward_pre_hooks
    old = [key for key, hook in hooks.items() if isinstance(hook, SpectralNorm)]
    if not old:
        return export(module)
    plain = copy_of(module)
    for key in old:
        hook = cast(SpectralNorm, plain._forward_pre_hooks.pop(key))
        value = hook.compute_weight(plain, do_power_iteration=False)
        delattr(plain, hook.name)
        del plain._parameters[f"{hook.name}_orig"]
        plain.register_parameter(hook.name, nn.Parameter(value.detach().clone()))
    return export(plain)


def _candidates(module: nn.Module, fixed: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield layers that train on and may compute the same, the tightest constraint first."""
    name = type_before_parametrizations(module).__name__
    if name in {"GroupSort", "GroupSort2", "FullSort"}:
        yield GroupSort(cast(Any, module).group_size), "GroupSort"
    if isinstance(fixed, HalvesHouseHolder):
        yield fixed, "HalvesHouseHolder"
    if isinstance(fixed, nn.Linear):
        yield from _dense(name, fixed)
    if type(fixed) is FixedConv2d:  # its bound depends on the size of the image
        fixed = fixed.conv
    if type(fixed) is nn.Conv2d:
        yield _reshaped(fixed), "RKOConv2d"
    if type(fixed) in _PLAIN:
        plain = _at_its_norm(fixed)
        yield plain, f"{type(fixed).__name__} under parametrize.lipschitz"


def _dense(name: str, fixed: nn.Linear) -> Iterator[tuple[nn.Module, str]]:
    makers: list[tuple[Callable[..., Any], str]] = [(CholeskyLinear, "CholeskyLinear")]
    if name in _UNIT_ROWS:
        makers = [(UnitNormLinear, "UnitNormLinear")]
    for make, note in makers:
        weight = fixed.weight
        layer = make(
            fixed.in_features,
            fixed.out_features,
            fixed.bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        wide = fixed.out_features < fixed.in_features and make is CholeskyLinear
        layer.raw_weight.copy_((weight.T if wide else weight).reshape(layer.raw_weight.shape))
        _copy_bias(layer, fixed)
        yield layer, note


def _reshaped(fixed: nn.Conv2d) -> RKOConv2d:
    """Return the layer of RKO whose free matrix is the kernel times the root of the overlap."""
    weight, mode = fixed.weight, fixed.padding_mode
    layer = RKOConv2d(
        fixed.in_channels,
        fixed.out_channels,
        pair(cast(Any, fixed.kernel_size)),
        pair(cast(Any, fixed.stride)),
        cast(Any, fixed.padding),
        pair(cast(Any, fixed.dilation)),
        fixed.groups,
        fixed.bias is not None,
        mode,
        device=weight.device,
        dtype=weight.dtype,
    )
    axes = list(zip(pair(cast(Any, fixed.kernel_size)), pair(cast(Any, fixed.stride)), strict=True))
    windows = overlap_of_maxima(axes, pair(cast(Any, fixed.dilation)))
    flat = (weight * windows**0.5).unflatten(0, (fixed.groups, -1)).flatten(2)
    tall = flat if flat.shape[1] >= flat.shape[2] else flat.mT
    layer.raw_weight.copy_(tall)
    _copy_bias(layer, fixed)
    return layer


def _at_its_norm(fixed: nn.Module) -> nn.Module:
    """Return torch's layer whose norm is constrained to what it is."""
    probe = lipschitz(copy.deepcopy(fixed).train().requires_grad_(True)).eval()
    factor = float(cast(Any, probe).parametrizations.weight[0].factor)
    constrained = lipschitz(copy.deepcopy(fixed).train().requires_grad_(True), k=1 / factor)
    return constrained.eval()


def _copy_bias(layer: nn.Module, fixed: nn.Module) -> None:
    if isinstance(fixed.bias, Tensor):
        cast(Tensor, layer.bias).copy_(fixed.bias)


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    """Return whether outputs are equal up to rounding and unfinished iterations; NaN never is."""
    if ours.shape != theirs.shape:
        return False
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    return bool(((ours - theirs).abs() <= _TOLERANCE * max(scale, 1e-6)).all())


def _compare(name: str, ours: Tensor, theirs: Tensor) -> None:
    if not _equal(ours, theirs):
        raise UnboundedModuleError(
            f"{name}: the converted layer computes something else on random inputs; keep the "
            "original and use onelip.export"
        )


def _from_state(
    state: Mapping[str, Tensor], shape: tuple[int, ...], into: nn.Module | None
) -> Conversion:
    """Fill a layer from a published checkpoint and compare it with the published formula."""
    if into is None:
        raise UsageError("a state dict has no forward pass: say into= which layer it goes")
    layer = copy.deepcopy(into).eval()
    layout = layout_of(layer, state)
    some = next(layer.parameters())
    state = {key: value.detach().to(some) for key, value in state.items()}
    layout.fill(layer, state)
    x = _samples(layer, shape)
    name = type(layer).__name__
    _compare(name, layer(x), layout.published(layer, state, x))
    return Conversion(layer.train(into.training), {"": name})
