"""Small networks that several tests share, those on which ECLipsE was published among them."""

import itertools

import numpy as np
import torch
from torch import Tensor, nn

from onelip.bounds.head_curvature import TwoLayers
from onelip.chains import Block, Chain, Dense, Elementwise, GroupSorting

INPUTS, OUTPUTS = 4, 1

PUBLISHED = {
    (2, 20): {"naive": 0.695617, "liplt": 0.461604, "eclipse_fast": 0.514469, "layer": 0.446684},
    (2, 40): {"naive": 0.420299, "liplt": 0.282176, "eclipse_fast": 0.310747, "layer": 0.263192},
    (5, 20): {"naive": 3.91797, "liplt": 1.44873, "eclipse_fast": 1.44342, "layer": 0.869221},
    (20, 20): {"naive": 0.635414, "liplt": 0.0144021, "eclipse_fast": 0.00899579},
}
"""Six digits, by (number of weights, width); ``layer`` is LipSDP with one multiplier per layer."""

for _key, _eclipse, _neuron in (
    ((2, 20), 0.383981, 0.383981),
    ((2, 40), 0.206466, 0.206466),
    ((5, 20), 0.790124, 0.568873),
):
    PUBLISHED[_key] |= {"eclipse": _eclipse, "neuron": _neuron}
PUBLISHED[20, 20]["eclipse"] = 0.00167441


def published_weights(layers: int, width: int) -> list[Tensor]:
    """Float64 weights ``(out, in)``: ``layers`` of them, from 4 inputs to 1 output."""
    random = np.random.RandomState(width * 7 + layers * 13)
    sizes = [INPUTS, *[width] * (layers - 1), OUTPUTS]
    weights = []
    for columns, rows in itertools.pairwise(sizes):
        norm = random.uniform(0.4, 1.8)
        weight = torch.from_numpy(random.randn(rows, columns))
        weights.append(weight * (norm / torch.linalg.matrix_norm(weight, 2)))
    return weights


def published_network(layers: int, width: int) -> Chain:
    """The network as a chain."""
    return chain_of(published_weights(layers, width))


def published_model(layers: int, width: int) -> nn.Sequential:
    """The network as a torch module, in float64, without biases."""
    weights = published_weights(layers, width)
    parts: list[nn.Module] = []
    for weight in weights:
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=torch.float64)
        linear.weight.data = weight
        parts += [linear, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def chain_of(weights: list[Tensor], activation: nn.Module | None = None) -> Chain:
    """A plain chain of dense layers with one elementwise activation, ReLU if left out."""
    nonlinearity = Elementwise.of(activation or nn.ReLU())
    blocks = tuple(Block(Dense(weight), nonlinearity) for weight in weights[:-1])
    return Chain(blocks, Dense(weights[-1]))


SHAPES = [(2, 2, 1), (3, 3, 2), (4, 3, 3), (5, 4, 1)]
"""Sizes of networks with one hidden layer, of which every activation pattern is reachable."""


def random_weights(*sizes: int) -> list[Tensor]:
    return [torch.randn(b, a, dtype=torch.float64) for a, b in itertools.pairwise(sizes)]


def sorting(size: int = 2) -> GroupSorting:
    class Sorting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.unflatten(1, (-1, size)).sort(2).values.flatten(1, 2)

    return GroupSorting(Sorting(), size)


def sorting_chain(weights: list[Tensor], size: int = 2) -> Chain:
    blocks = tuple(Block(Dense(weight), sorting(size)) for weight in weights[:-1])
    return Chain(blocks, Dense(weights[-1]))


def dense_model(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Dense layers with an activation between them, in float64."""
    parts: list[nn.Module] = []
    for columns, rows in itertools.pairwise(widths):
        parts += [nn.Linear(columns, rows), activation()]
    return nn.Sequential(*parts[:-1]).double().eval()


def head_of(
    features: int, hidden: int, classes: int, phi: nn.Module, *, scale: float = 1.0
) -> TwoLayers:
    """A random head with one hidden layer, in float64."""
    inner = scale * torch.randn(hidden, features, dtype=torch.float64) / features**0.5
    outer = scale * torch.randn(classes, hidden, dtype=torch.float64) / hidden**0.5
    bias = torch.randn(hidden, dtype=torch.float64), torch.randn(classes, dtype=torch.float64) / 4
    return TwoLayers(inner, bias[0], phi, outer, bias[1])
