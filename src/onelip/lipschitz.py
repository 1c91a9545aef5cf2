"""The contract: what a module must say about its Lipschitz constant, and how to ask.

A module proves its constant in one of two ways: as a ``LipschitzModule``, by a method, or as one
of torch's own modules, by a rule kept in ``RULES`` under its exact type. Anything else is refused.
All constants are with respect to the Euclidean norm of the flattened input and output.
"""

import abc
import copy
import importlib
import inspect
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import prune
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from onelip import norms
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.norms.convolution import pair
from onelip.norms.rounding import downward, exact, product, upward
from onelip.norms.slopes import SLOPES, slopes


class LipschitzModule(nn.Module, abc.ABC):
    """A module that proves a bound of its own Lipschitz constant."""

    export_keeps_function = True
    """Whether ``export`` computes the same function, unless it lowers the bound."""

    @abc.abstractmethod
    def lipschitz_bound(self) -> Tensor:
        """Upper bound of the Lipschitz constant of ``forward`` as it would run now.

        Returns:
            A 0-d float64 tensor, computed without side effect from the weights that ``forward``
            uses, rounding added.
        """

    def export(self) -> nn.Module:
        """The same function from fixed weights; a layer without reparametrisation copies itself.

        Raises:
            UnboundedModuleError: it holds other layers, whose export it would have to arrange.
        """
        if any(isinstance(part, LipschitzModule) for part in self.children()):
            raise UnboundedModuleError(f"{type(self).__name__} holds layers: write its export()")
        return copy.deepcopy(self)


Rule = Callable[[Any], Tensor | float]
RuleT = TypeVar("RuleT", bound=Rule)

RULES: dict[type[nn.Module], Rule] = {}
"""Bounds of modules that are not ours, by exact type: a subclass does not inherit a rule."""


def rule(*kinds: type[nn.Module]) -> Callable[[RuleT], RuleT]:
    """Register a bound for modules of exactly these types."""

    def register(function: RuleT) -> RuleT:
        RULES.update(dict.fromkeys(kinds, function))
        return function

    return register


LIBRARIES = {
    "deel.torchlip": "onelip.foreign.deel_torchlip",
    "orthogonium": "onelip.foreign.orthogonium",
}
"""Our files on the layers of other libraries, imported when such a layer is met."""


def of_library(kind: type[nn.Module], table: str) -> Any:
    """What our file on the library that a type comes from says of exactly this type, or None.

    Raises:
        UnboundedModuleError: the library has other classes than those that the file was written on.
    """
    for library, file in LIBRARIES.items():
        if f"{kind.__module__}.".startswith(f"{library}."):
            try:
                return getattr(importlib.import_module(file), table).get(kind)
            except (ImportError, AttributeError) as error:
                raise UnboundedModuleError(
                    f"{file} was written on another version of {library}: {error}"
                ) from error
    return None


@torch.no_grad()
def lipschitz_bound(module: nn.Module) -> Tensor:
    """Proved upper bound of the Lipschitz constant of a module, from l2 to l2.

    Bound: for sequences, the product of the bounds of the parts.
    Cost: that of the norms of all layers (``onelip.norms``), once, in float64.

    Args:
        module: a ``LipschitzModule``, or a torch module with a rule.

    Returns:
        A 0-d float64 tensor on the CPU.

    Raises:
        UnboundedModuleError: nothing is proved for this module; the message names it.
        NonFiniteError: a weight, or the bound itself, is infinite or NaN.

    Example:
        >>> import torch, onelip
        >>> onelip.lipschitz_bound(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()))
        tensor(1., dtype=torch.float64)
    """
    refuse_hidden_behaviour(module)
    if isinstance(module, LipschitzModule):
        refuse_inherited(module, "lipschitz_bound")
        for part in module.modules():
            _refuse_moving(part)
        value = module.lipschitz_bound()
    else:
        kind = type_before_parametrizations(module)
        known: Rule | None = RULES.get(kind) or of_library(kind, "RULES")
        if known is None:
            raise UnboundedModuleError(
                f"no Lipschitz bound is known for {kind.__module__}.{kind.__qualname__}; derive it "
                "from onelip.LipschitzModule or register a rule with onelip.lipschitz.rule"
            )
        _refuse_moving(module)
        value = torch.as_tensor(known(module), dtype=torch.float64)
    return finite(value.to("cpu", torch.float64), type(module).__name__)


def finite(bound: Tensor, name: str) -> Tensor:
    """The bound, if it is one.

    Raises:
        NonFiniteError: it is infinite or NaN.
    """
    if not torch.isfinite(bound):
        raise NonFiniteError(f"the bound of {name} is {float(bound)}")
    return bound


MethodT = TypeVar("MethodT", bound=Callable[..., Any])


def overridable(method: MethodT) -> MethodT:
    """Mark a method that derived classes may write anew: no default proof rests on it."""
    method.__overridable__ = True  # type: ignore[attr-defined]
    return method


_OVERRIDABLE = {
    "__dict__",
    "__weakref__",
    "__init__",
    "__init_subclass__",
    "__repr__",
    "extra_repr",
}
_OVERRIDABLE |= {"reset_parameters", "_load_from_state_dict", "_save_to_state_dict"}
_OVERRIDABLE |= {"get_extra_state", "set_extra_state"}  # a state is read as it is


def refuse_inherited(module: nn.Module, method: str) -> None:
    """Refuse a default that was written for other classes than the module's.

    A layer is final: what it proves of itself says nothing about a class derived from it. What an
    abstract base proves holds for classes that fill in its abstract methods, and leave all others
    that it has alone: those the proof rests on. A class for which it holds nevertheless says so by
    adopting it, ``lipschitz_bound = Base.lipschitz_bound``.

    Raises:
        UnboundedModuleError: the method comes from another concrete class than the module's own, or
            a class between its owner and the module's overrides something else.
    """
    kind = type_before_parametrizations(module)
    lineage = kind.__mro__
    place = next(i for i, base in enumerate(lineage) if method in vars(base))
    owner = lineage[place]
    layers = [base for base in lineage[: place + 1] if issubclass(base, nn.Module)]
    concrete = [base for base in layers if not inspect.isabstract(base)]
    if len(concrete) > 1:
        raise UnboundedModuleError(
            f"{kind.__name__} inherits {method} from {owner.__name__}, which speaks for "
            f"{concrete[1].__name__} only: write one for it"
        )
    for base in lineage:  # in front of the owner, or after it, but before a base of the owner
        for name, value in () if base in owner.__mro__ else vars(base).items():
            if _rests_on(owner, name, value):
                raise UnboundedModuleError(
                    f"{kind.__name__} inherits {method} from {owner.__name__}, which knows nothing "
                    f"of {base.__name__}.{name}: write {method} for it, or, if it still holds, "
                    f"adopt it by {method} = {owner.__name__}.{method} in the class"
                )


_MISSING = object()


def _rests_on(owner: type, name: str, value: object) -> bool:
    """Whether a default of this class may depend on what it has under a name, and is now a value.

    Data may be replaced by data, for forward and proof read the same.
    """
    own = inspect.getattr_static(owner, name, _MISSING)
    if own is _MISSING or name in _OVERRIDABLE or name in getattr(owner, "__abstractmethods__", ()):
        return False
    function = own.__func__ if isinstance(own, classmethod | staticmethod) else own
    return not (_is_data(own) and _is_data(value)) and not hasattr(function, "__overridable__")


def _is_data(value: object) -> bool:
    return isinstance(value, type) or not (callable(value) or hasattr(type(value), "__get__"))


def refuse_hidden_behaviour(module: nn.Module) -> None:
    """Hooks and patched methods change what a module computes, out of sight of its rule.

    Raises:
        UnboundedModuleError: forward hooks or patched methods on the module or one inside it, or
            forward hooks on all modules.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        raise UnboundedModuleError("a forward hook is registered for all modules: remove it")
    for part in module.modules():
        patched = [name for name in vars(part) if callable(getattr(type(part), name, None))]
        if part._forward_hooks or part._forward_pre_hooks or patched:
            raise UnboundedModuleError(
                f"{type(part).__name__} has {_what_is_hidden(part, patched)}"
            )


def _what_is_hidden(part: nn.Module, patched: list[str]) -> str:
    """What changes the outputs of a module out of sight, and the way out."""
    if hasattr(part, "_orig_mod"):
        return "a compiled forward: pass the module that was compiled, model._orig_mod"
    if patched:
        return f"a patched method, {', '.join(patched)}: remove it, or derive a class and prove it"
    for hook in (*part._forward_pre_hooks.values(), *part._forward_hooks.values()):
        if isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            return (
                f"a pruned {name}: make it permanent, torch.nn.utils.prune.remove(part, '{name}')"
            )
        if type(hook).__module__.startswith("torch.nn.utils."):
            name = f"{type(hook).__module__}.{type(hook).__name__}"
            return f"the forward hook {name}: use torch.nn.utils.parametrizations instead"
    return "a forward hook, which may change what it computes: handle.remove() while it is proved"


def refuse_complex(module: nn.Module) -> None:
    """Whole networks are read, and certified, in real numbers.

    Raises:
        UnboundedModuleError: a weight is complex.
    """
    for name, weight in module.named_parameters():
        if weight.is_complex():
            raise UnboundedModuleError(
                f"{name} is complex: onelip.lipschitz_bound takes single complex layers, networks "
                "are bounded and certified in real numbers (view_as_real)"
            )


def _refuse_moving(module: nn.Module) -> None:
    if module.training and is_parametrized(module):
        raise UnboundedModuleError(
            f"a parametrized {type_before_parametrizations(module).__name__} may change its weight "
            "when it is read in training mode: model.eval()"
        )
    refuse_moving_weights(module)


def refuse_moving_weights(module: nn.Module) -> None:
    """Some parametrizations go on with a power iteration when they are read, in eval mode too.

    Raises:
        UnboundedModuleError: weights of a copy, or its state, change from reading to reading.
    """
    if not is_parametrized(module):
        return
    twin = copy.deepcopy(module)
    weights = [part() for part in twin.parametrizations.values()]  # type: ignore[operator]
    again = [part() for part in twin.parametrizations.values()]  # type: ignore[operator]
    pairs = [*zip(weights, again, strict=True), *zip(_state(module), _state(twin), strict=True)]
    if not all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs):
        raise UnboundedModuleError(
            f"{type_before_parametrizations(module).__name__} computes another weight each time it "
            "is read, in eval mode too: onelip.export(model) fixes it"
        )


def _state(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@rule(*SLOPES)
def _activation(module: nn.Module) -> float:
    low, high = slopes(module)
    return max(abs(low), abs(high))


MOVES: tuple[type[nn.Module], ...] = (
    nn.Flatten,
    nn.Unflatten,
    nn.ZeroPad2d,
    nn.PixelUnshuffle,
    nn.PixelShuffle,
    nn.ChannelShuffle,
)
"""Modules of torch that move numbers, or put zeros between them."""


@rule(*MOVES)
def _isometry(module: nn.Module) -> float:
    if isinstance(module, nn.Unflatten) and module.dim == 0:
        raise UnboundedModuleError(
            "Unflatten(0, ...) makes samples of one into samples of several, or the other way "
            "round: dim=1 or more"
        )
    return 1.0


@rule(nn.Sequential)
def _sequential(module: nn.Sequential) -> Tensor:
    return product([lipschitz_bound(part) for part in module])


@rule(nn.Linear)
def _linear(module: nn.Linear) -> Tensor:
    return norms.dense(module.weight)


@rule(nn.Conv2d)
def _conv2d(module: nn.Conv2d) -> Tensor:
    """For every image size, since the module does not know its own."""
    return norms.convolution(
        module.weight,
        padding=module.padding,  # type: ignore[arg-type]
        padding_mode=module.padding_mode,
        stride=module.stride,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
    )


@rule(nn.Conv1d)
def _conv1d(module: nn.Conv1d) -> Tensor:
    padding = module.padding if isinstance(module.padding, str) else (0, module.padding[0])
    return norms.convolution(
        module.weight[:, :, None],
        padding=padding,
        padding_mode=module.padding_mode,
        stride=(1, module.stride[0]),
        dilation=(1, module.dilation[0]),
        groups=module.groups,
    )


@rule(nn.ConvTranspose2d)
def _conv_transpose2d(module: nn.ConvTranspose2d) -> Tensor:
    """The adjoint of ``nn.Conv2d`` with the same weight, or of a part of it, with zero padding."""
    return norms.convolution(
        module.weight,
        padding=module.padding,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
    )


@rule(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
def _dropout(module: nn.Module) -> float:
    if module.training:
        raise UnboundedModuleError(f"{type(module).__name__} is random in training: model.eval()")
    return 1.0


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def _batch_norm(module: nn.BatchNorm2d) -> Tensor:
    if module.training or module.running_var is None:
        raise UnboundedModuleError(
            "BatchNorm divides by batch statistics in training and without running ones: "
            "model.eval(), track_running_stats=True"
        )
    deviation = downward((exact(module.running_var) + module.eps).sqrt(), 2)
    scale = torch.ones_like(deviation) if module.weight is None else exact(module.weight).abs()
    return upward(scale / deviation, 1).max()


@rule(nn.AvgPool2d)
def _average_pool(module: nn.AvgPool2d) -> float:
    """The box filter, its taps counted by phase of the stride: exact on large images."""
    if module.ceil_mode or (any(pair(module.padding)) and not module.count_include_pad):
        raise UnboundedModuleError(
            "AvgPool2d divides by less at the border: ceil_mode=False, count_include_pad=True"
        )
    windows = _windows(module)
    area = math.prod(kernel for kernel, _ in windows)
    return root_above(overlap_of_sums(windows), module.divisor_override or area)


@rule(nn.MaxPool2d)
def _max_pool(module: nn.MaxPool2d) -> float:
    """A pixel reaches at most the windows that cover it: the root of their number."""
    if module.return_indices:
        raise UnboundedModuleError("MaxPool2d returns indices, which jump: return_indices=False")
    return root_above(overlap_of_maxima(_windows(module), pair(module.dilation)))


Windows = list[tuple[int, int]]  # kernel size and stride along each axis


def overlap_of_sums(windows: Windows) -> int:
    """Squared norm of summing over windows: the taps of each phase of the stride, squared."""
    return math.prod(
        sum(len(range(phase, kernel, stride)) ** 2 for phase in range(stride))
        for kernel, stride in windows
    )


def overlap_of_maxima(windows: Windows, dilations: tuple[int, int] = (1, 1)) -> int:
    """Squared Lipschitz constant of maxima over windows: how many windows share a pixel."""
    return math.prod(
        -(-kernel // (stride // math.gcd(stride, dilation)))
        for (kernel, stride), dilation in zip(windows, dilations, strict=True)
    )


def _windows(module: nn.AvgPool2d | nn.MaxPool2d) -> Windows:
    return list(zip(pair(module.kernel_size), pair(module.stride), strict=True))


def root_above(square: int, divisor: int = 1) -> float:
    """The smallest float found that is not below ``sqrt(square) / |divisor|``."""
    value = math.sqrt(square) / abs(divisor)
    while (Fraction(value) * divisor) ** 2 < square:
        value = math.nextafter(value, math.inf)
    return value
