"""Records of torch's elementwise activations, from what is known of each activation."""

import copy

from torch import nn

from onelip.activations import ACTIVATIONS, slopes
from onelip.chains import Elementwise
from onelip.chains.linear_layers import expect
from onelip.chains.value import Value
from onelip.lipschitz.records import RECORDS, ModuleRecord
from onelip.norms.rounding import exact


def _steepest(module: nn.Module) -> float:
    low, high = slopes(module)
    return max(abs(low), abs(high))


def activation(module: nn.Module, value: Value) -> Value:
    """A value after an activation; the identity leaves it as it is, and makes no block."""
    return value if type(module) is nn.Identity else elementwise(module, value)


def elementwise(module: nn.Module, value: Value) -> Value:
    """A new block with an activation, never in place: a block needs what it takes once more."""
    if getattr(module, "inplace", False):
        module = copy.copy(module)
        vars(module)["inplace"] = False
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return value.activated(_prelu(module, value))
    return value.activated(Elementwise.of(module))


def _prelu(module: nn.PReLU, value: Value) -> Elementwise:
    """Slopes by channel."""
    expect(value, f"({module.num_parameters}, ...)", value.shape[0] == module.num_parameters)
    slopes = exact(module.weight).cpu().view(-1, *(1,) * (len(value.shape) - 1))
    slopes = slopes.expand(value.shape)
    return Elementwise(module, slopes.clamp(max=1), slopes.clamp(min=1))


RECORDS |= {
    kind: ModuleRecord(
        lipschitz_bound=_steepest, to_chain=activation, forward_error=known.forward_error
    )
    for kind, known in ACTIVATIONS.items()
}
