"""Records of torch's modules that move numbers, or leave them alone."""

from torch import nn

from onelip.chains.linear_layers import flattened, moved
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import moved as exact
from onelip.lipschitz.records import RECORDS, ModuleRecord


def _isometry(module: nn.Module) -> float:
    if isinstance(module, nn.Unflatten) and module.dim == 0:
        raise UnboundedModuleError(
            "Unflatten(0, ...) makes samples of one into samples of several, or the other way "
            "round: dim=1 or more"
        )
    return 1.0


def _flatten(module: nn.Flatten, value: Value) -> Value:
    return flattened(value, module.start_dim, module.end_dim)


def _moved(module: nn.Module, value: Value) -> Value:
    return moved(value, module)


def _dropout_bound(module: nn.Module) -> float:
    if module.training:
        raise UnboundedModuleError(f"{type(module).__name__} is random in training: model.eval()")
    return 1.0


def _dropout_chain(module: nn.Module, value: Value) -> Value:
    _dropout_bound(module)
    return value


_MOVED = ModuleRecord(lipschitz_bound=_isometry, to_chain=_moved, forward_error=exact)
_DROPPED = ModuleRecord(
    lipschitz_bound=_dropout_bound, to_chain=_dropout_chain, forward_error=exact
)

RECORDS |= {
    nn.Flatten: ModuleRecord(lipschitz_bound=_isometry, to_chain=_flatten, forward_error=exact),
    nn.Unflatten: _MOVED,
    nn.ZeroPad2d: _MOVED,
    nn.PixelUnshuffle: _MOVED,
    nn.PixelShuffle: _MOVED,
    nn.ChannelShuffle: _MOVED,
    nn.Dropout: _DROPPED,
    nn.Dropout1d: _DROPPED,
    nn.Dropout2d: _DROPPED,
    nn.Dropout3d: _DROPPED,
    nn.AlphaDropout: _DROPPED,
}
