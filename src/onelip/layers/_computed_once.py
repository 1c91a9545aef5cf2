"""Computation from the weights alone: once a step, batched over layers of equal shape."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator

from torch import nn

from onelip.layers.constrained import ComputedOnce


@contextlib.contextmanager
def computed_once(model: nn.Module) -> Iterator[None]:
    """Compute the weights of every layer now, and use them until the context ends.

    Without it each layer computes its weight (or takes its power step) in ``forward``. The results
    are the same up to rounding; layers of equal shape share one batched computation, and a weight
    that is used several times is computed once. Weights that are changed inside the context take
    effect at its end.

    Args:
        model: in training mode, for one forward and backward pass; or in eval mode, for any number
            of forward passes.

    Example:
        >>> import torch, onelip
        >>> model = onelip.layers.ConvexPotentialLinear(4, 8)
        >>> with onelip.layers.computed_once(model):
        ...     output = model(torch.ones(1, 4))
    """
    groups: dict[object, list[ComputedOnce]] = defaultdict(list)
    for layer in model.modules():
        if isinstance(layer, ComputedOnce) and not layer.begun:
            groups[layer.batch_key()].append(layer)
    try:
        for layers in groups.values():
            layers[0].begin(layers)
            for layer in layers:
                layer.begun = True
        yield
    finally:
        for layers in groups.values():
            for layer in layers:
                layer.end()
                layer.begun = False
