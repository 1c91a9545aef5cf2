"""Proved Lipschitz constant of a network, by any method."""

from torch import Tensor, nn

from onelip.bounds._local import Local
from onelip.bounds.averages import Mean
from onelip.bounds.method import BoundMethod, Network
from onelip.bounds.registry import bound_method
from onelip.chains import Shape


def lipschitz_bound(
    model: Network, input_shape: Shape | None = None, *, method: BoundMethod | str = "product"
) -> Tensor:
    """Proved upper bound of the Lipschitz constant of a network, from l2 to l2.

    Bound: that of the method. For a module the default is the product of the bounds of its
        layers, for inputs of any size.
    Cost: that of the method; for the default, one norm per layer, in float64.

    Args:
        model: a module in eval mode, an exported program, or a chain.
        input_shape: of one input, without the batch; the default needs none.
        method: one of ``onelip.bounds``, as ``LipLT()``, or its name.

    Returns:
        A 0-d float64 tensor on the CPU.

    Raises:
        UnboundedModuleError: nothing is proved for a part; the message names it.
        NotApplicableError: the method does not cover the network.
        NonFiniteError: a weight, or the bound itself, is infinite or NaN.
        UsageError: no method of that name, or no input shape where one is needed.

    Example:
        >>> import onelip, torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())
        >>> onelip.lipschitz_bound(model)
        tensor(1., dtype=torch.float64)
        >>> onelip.lipschitz_bound(model, (3, 4), method=onelip.bounds.LipLT())
        tensor(1., dtype=torch.float64)
    """
    found = bound_method(method)
    mean = Mean.of(model) if isinstance(model, nn.Module) else None
    if mean is None or isinstance(found, Local):
        return found.bound(model, input_shape)
    found = found.shared(len(mean.networks))
    return mean.constant([found.bound(network, input_shape) for network in mean.networks])
