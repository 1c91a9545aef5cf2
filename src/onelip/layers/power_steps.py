"""The power steps of a whole model, batched over layers of equal shape."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator

from torch import nn

from onelip.layers.convex_potential import ConvexPotential


@contextlib.contextmanager
def batched_power_steps(model: nn.Module) -> Iterator[None]:
    """Take one power step of every layer now; inside the context, layers take none of their own.

    Without it each layer takes its step in ``forward``. The result is the same, up to rounding;
    convolutions of equal shape share one grouped call, which takes half the time on small images
    (``benchmarks/power_step.py``). Dense layers step one by one: stacking their weights costs more
    than it saves.

    Args:
        model: in training mode; one forward pass of it belongs in the context.

    Example:
        >>> import torch, onelip
        >>> model = onelip.layers.ConvexPotentialLinear(4, 8)
        >>> with batched_power_steps(model):
        ...     output = model(torch.ones(1, 4))
    """
    groups: dict[object, list[ConvexPotential]] = defaultdict(list)
    for layer in model.modules():
        if isinstance(layer, ConvexPotential) and layer.training and layer.fixed_step is None:
            groups[layer.batch_key()].append(layer)
    for layers in groups.values():
        layers[0].power_step_together(layers)
    together = [(layer, layer.own_power_steps) for layers in groups.values() for layer in layers]
    for layer, _ in together:
        layer.own_power_steps = False
    try:
        yield
    finally:
        for layer, before in together:
            layer.own_power_steps = before
