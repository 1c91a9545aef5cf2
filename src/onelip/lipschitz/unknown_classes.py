"""Classes of modules that no rule is known of: wrappers, and those that users write."""

from torch import nn

from onelip.lipschitz.module import LipschitzModule
from onelip.lipschitz.records import record_of

WRAPPERS = {
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
}
"""Classes that only pass their input on, and where they keep the module that computes."""


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside wrappers that only pass their input on, such as DDP."""
    while (
        place := WRAPPERS.get(f"{type(model).__module__}.{type(model).__qualname__}")
    ) is not None:
        model = getattr(model, place)
    return model


def has_unknown_class(model: nn.Module) -> bool:
    """Return whether a part of nested Sequentials has no rule, torch's own modules included."""
    if type(model) is nn.Sequential:
        return any(has_unknown_class(part) for part in model)
    return not isinstance(model, LipschitzModule) and record_of(model) is None
