"""Torch modules as chains, with the refusals of ``onelip.lipschitz``."""

from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip.chains import Chain, Shape
from onelip.chains.value import Value, like_of
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.lipschitz import read_module, refuse_complex, refuse_hidden_behaviour
from onelip.norms.rounding import asked_once
from onelip.reading.traced import Traced, readable


@asked_once()
def read(model: nn.Module, input_shape: Shape) -> Chain:
    """A network as a chain: what bounds of whole networks are computed on.

    The maps hold the parameters of ``model`` themselves, so an estimate on the chain can be
    differentiated; ``chain.exact()`` is for proofs. Modules that have a bound and are not known
    here are read as ``Opaque``. A class of your own is traced by ``torch.export``: what its forward
    calls is read, and the layers of onelip inside it are read by their own rules.

    Cost: next to none, or that of a trace; the bound of each module that is opaque.

    Args:
        model: an ``nn.Sequential``, nested or not, of torch's modules and of onelip's layers, or a
            module of any class whose forward can be traced, in eval mode.
        input_shape: of a single input, without the batch.

    Returns:
        A chain with ``chain.forward(x) == model(x)`` up to rounding.

    Raises:
        UnboundedModuleError: nothing is proved for a module; the message says where it is.
        UsageError: the inputs of a module have another shape than it takes.
        NonFiniteError: a number that the reading needs is infinite or NaN.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> chain = read(net, (4,))
        >>> len(chain.blocks), chain.outputs
        (1, (2,))
    """
    shape = tuple(int(side) for side in input_shape)
    if not shape or min(shape) < 1:
        raise UsageError(f"the shape of a single input is asked, without the batch: got {shape}")
    model = readable(model, shape)
    refuse_hidden_behaviour(model)
    refuse_complex(model)
    return _sequence(model, Value.entering(shape, like_of(model)), "").chain()


def _sequence(module: nn.Module, value: Value, path: str) -> Value:
    """Walk through sequences, and name the module that cannot be read."""
    if type(module) is nn.Sequential:
        for name, part in module._modules.items():
            assert part is not None
            value = _sequence(part, value, f"{path}.{name}" if path else name)
        return value
    kind = type_before_parametrizations(module).__name__
    if isinstance(module, Traced):
        kind = module.title
    name = f"{path} ({kind})" if path else kind
    try:
        return read_module(module, value).named(name)
    except (UnboundedModuleError, UsageError, NonFiniteError) as error:
        raise type(error)(f"{name}: {error}") from error
