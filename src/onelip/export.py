"""From a trained model to plain modules with fixed weights."""

import copy
from collections import OrderedDict

from torch import nn
from torch.nn.utils import parametrize

from onelip.lipschitz import LipschitzModule


def export(model: nn.Module) -> nn.Module:
    """Copy a model into plain torch modules with fixed weights, for certificates and for use.

    Layers whose step or kernel rested on an estimate in training get one that rests on a proved
    norm: Convex Potential layers become 1-Lipschitz by proof. Where the estimate was already good
    enough, the exported network computes the same function.

    Cost: one proved norm per layer that needs it.

    Args:
        model: a ``LipschitzModule``, a torch module or an ``nn.Sequential`` of them.

    Returns:
        A new module in eval mode, without gradients; ``model`` is left alone.

    Example:
        >>> import onelip
        >>> onelip.export(nn.Sequential(onelip.layers.LastLayer(4, 2)))
        Sequential(
          (0): Linear(in_features=4, out_features=2, bias=True)
        )
    """
    return _exported(model).eval().requires_grad_(False)


def _exported(module: nn.Module) -> nn.Module:
    if isinstance(module, LipschitzModule):
        return module.export()
    if type(module) is nn.Sequential:
        return nn.Sequential(OrderedDict((n, _exported(m)) for n, m in module.named_children()))
    result = copy.deepcopy(module)
    for part in result.modules():
        if parametrize.is_parametrized(part):
            for name in list(part.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(part, name)
    return result
