"""Records of torch's batch normalisations, in eval mode."""

import torch
from torch import Tensor, nn

from onelip.chains.linear_layers import standardised
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import Local, Run, repeated
from onelip.lipschitz.records import RECORDS, ModuleRecord
from onelip.norms.rounding import downward, exact, upward


def _bound(module: nn.BatchNorm2d) -> Tensor:
    if module.training or module.running_var is None:
        raise UnboundedModuleError(
            "BatchNorm divides by batch statistics in training and without running ones: "
            "model.eval(), track_running_stats=True"
        )
    deviation = downward((exact(module.running_var) + module.eps).sqrt(), 2)
    scale = torch.ones_like(deviation) if module.weight is None else exact(module.weight).abs()
    return upward(scale / deviation, 1).max()


def _chain(module: nn.BatchNorm2d, value: Value) -> Value:
    _bound(module)
    assert module.running_mean is not None
    assert module.running_var is not None
    return standardised(
        value,
        module.running_mean,
        module.running_var,
        weight=module.weight,
        bias=module.bias,
        epsilon=module.eps,
    )


def _error(module: nn.BatchNorm2d, run: Run) -> Local:
    """``a x + (b - a m)``, at worst, with ``a = w / sqrt(v + eps)``."""
    assert module.running_mean is not None
    assert module.running_var is not None
    deviation = downward((exact(module.running_var) + module.eps).sqrt(), 2)
    slope = upward(_or_one(module.weight, deviation).abs() / deviation, 1)
    shift = slope * exact(module.running_mean).abs()
    shift = shift if module.bias is None else shift + exact(module.bias).abs()
    offset = repeated(upward(shift, 3).cpu(), run)
    lost = run.arithmetic.lost * run.x.reach  # of the factor
    return Local(offset, run.rounding(12, run.lipschitz * run.x.reach + offset) + lost)


def _or_one(weight: Tensor | None, like: Tensor) -> Tensor:
    return torch.ones_like(like) if weight is None else exact(weight)


_RECORD = ModuleRecord(lipschitz_bound=_bound, to_chain=_chain, forward_error=_error)
RECORDS |= dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _RECORD)
