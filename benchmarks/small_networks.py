"""Small random networks, as modules of torch and as all matrices that they can be.

A network is drawn part by part. For each nonlinearity there are all matrices that it can be at a
point: both slopes of every unit, every order of a sorted group, every choice of a maximum. Nothing
here goes through chains or bounds.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import factorial, prod
from typing import Any

import torch
from torch import Tensor, nn

from onelip.layers import GradientStep, GroupSort, MaxMin

MOST = 4096  # products of one network
KINDS = ("dense", "dense", "convolutions", "pooling", "gradient steps", "residual")
SLOPES = (0.0, 0.25, -1.0, 1.5)  # of LeakyReLU; the first is ReLU, the third the absolute value
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Stage:
    """``skip x + outer p(inner x)``, where p is one of several matrices."""

    inner: Tensor
    choices: Tensor
    outer: Tensor | None = None
    skip: Tensor | None = None

    def after(self, found: Tensor) -> Tensor:
        """All products with one more stage, those of the first choice first."""
        new = self.choices[:, None] @ (self.inner @ found)
        new = new if self.outer is None else self.outer @ new
        return (new if self.skip is None else new + self.skip @ found).flatten(0, 1)


@dataclass
class Network:
    """Modules, and the same as matrices."""

    kind: str
    shape: Shape
    parts: list[nn.Module] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    last: Tensor | None = None

    @property
    def model(self) -> nn.Sequential:
        """The network, in eval mode."""
        return nn.Sequential(*self.parts).eval()

    def products(self) -> Tensor:
        """Every matrix that the network can be, ``(products, outputs, inputs)``."""
        found = torch.eye(prod(self.shape), dtype=torch.float64)[None]
        for stage in self.stages:
            found = stage.after(found)
        assert self.last is not None
        return self.last @ found

    def is_below(self, bound: float, index: int, rows: Tensor, direction: Tensor) -> bool:
        """Whether a product stretches a direction by more than the bound: no rounding at all."""
        digits = []
        for stage, count in zip(reversed(self.stages), reversed(self._counts()), strict=True):
            digits.append((stage, stage.choices[index // count]))
            index %= count
        vector = [Fraction(v) for v in direction.tolist()]
        length = sum(v * v for v in vector)
        for stage, choice in reversed(digits):
            image = _times(choice, _times(stage.inner, vector))
            image = image if stage.outer is None else _times(stage.outer, image)
            if stage.skip is not None:
                around = _times(stage.skip, vector)
                image = [a + b for a, b in zip(image, around, strict=True)]
            vector = image
        assert self.last is not None
        vector = _times(rows, _times(self.last, vector))
        return sum(v * v for v in vector) > Fraction(bound) ** 2 * length

    def _counts(self) -> list[int]:
        """Products in front of each stage."""
        sizes = [len(stage.choices) for stage in self.stages]
        return list(itertools.accumulate(sizes[:-1], lambda a, b: a * b, initial=1))[: len(sizes)]


def _times(matrix: Tensor, vector: list[Fraction]) -> list[Fraction]:
    products = (
        [Fraction(a) * v for a, v in zip(row, vector, strict=True)] for row in matrix.tolist()
    )
    return [sum(row, Fraction(0)) for row in products]


def matrix_of(layer: nn.Module, shape: Shape) -> Tensor:
    """The matrix of an affine layer, by basis vectors in float64."""
    wide = {name: value.double() for name, value in layer.state_dict().items()}
    wide |= {name: torch.zeros_like(value) for name, value in wide.items() if "bias" in name}
    basis = torch.eye(prod(shape), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        images: Tensor = torch.func.functional_call(layer, wide, (basis,))
    return images.flatten(1).T.contiguous()


def slopes(low: float, high: float, count: int) -> Tensor:
    """Diagonal matrices of all patterns."""
    patterns = list(itertools.product((low, high), repeat=count))
    return torch.tensor(patterns, dtype=torch.float64).diag_embed()


def orders(groups: list[list[int]], count: int) -> Tensor:
    """Permutations of the entries of each group."""
    eye, found = torch.eye(count, dtype=torch.float64), []
    for chosen in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = list(range(count))
        for group, new in zip(groups, chosen, strict=True):
            for place, entry in zip(group, new, strict=True):
                order[place] = entry
        found.append(eye[order])
    return torch.stack(found)


def maxima(side: int, step: int, edge: int, shape: Shape) -> Tensor:
    """Every choice of one entry in each window of a maximum pooling."""
    entries = torch.arange(1.0, prod(shape) + 1, dtype=torch.float64).view(1, *shape)
    padded = nn.functional.pad(entries, [edge] * 4)
    windows = nn.functional.unfold(padded.transpose(0, 1), side, stride=step).transpose(1, 2)
    candidates = [[int(i) - 1 for i in row if i] for row in windows.flatten(0, 1).tolist()]
    eye = torch.eye(prod(shape), dtype=torch.float64)
    return torch.stack([eye[list(chosen)] for chosen in itertools.product(*candidates)])


class Residual(nn.Module):
    """``x + outer(activation(inner(x)))``."""

    def __init__(self, inner: nn.Linear, activation: nn.Module, outer: nn.Linear) -> None:
        super().__init__()
        self.inner, self.activation, self.outer = inner, activation, outer

    def forward(self, x: Tensor) -> Tensor:
        """Add the branch."""
        y: Tensor = self.outer(self.activation(self.inner(x)))
        return x + y


class Drawn:
    """A random network, built part by part."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        torch.manual_seed(seed)
        self.dtype = self.draw.choice([torch.float32, torch.float64])
        self.style = self.draw.choice(
            ["normal", "normal", "scales", "wide", "signs", "equal", "zero"]
        )
        self.left = self.draw.choice([64, 256, 1024, MOST])  # products that may still come
        kind = self.draw.choice(KINDS)
        self.network = Network(kind, self._shape(kind))
        self.shape = self.network.shape
        self.pending: Tensor | None = None  # the last linear layer, before its nonlinearity

    def _shape(self, kind: str) -> Shape:
        if kind in ("convolutions", "pooling"):
            return self.draw.choice([(1, 3, 3), (1, 4, 4), (2, 3, 2), (1, 2, 5), (2, 3, 3)])
        return (self.draw.randint(1, 6),)

    def whole(self) -> Network:
        """Draw until there is no room for another nonlinearity, or enough of them."""
        grown = {"gradient steps": self._gradient_step, "residual": self._residual}
        grow = grown.get(self.network.kind, lambda: self._nonlinearity(self._linear()))
        for _ in range(self.draw.randint(1, 4)):
            if not grow():
                break
        if len(self.shape) == 3:
            self.network.parts.append(nn.Flatten())
            self.shape = (prod(self.shape),)
        if self.network.kind == "residual" or self.draw.random() < 0.9:
            self._add(nn.Linear(self.shape[0], self.draw.randint(1, 4)))
        eye = torch.eye(self.shape[0], dtype=torch.float64)
        self.network.last = eye if self.pending is None else self.pending
        return self.network

    def _weight(self, layer: Any) -> Any:
        """A layer with random weights in the style of the network."""
        draw, weight = self.draw, torch.randn(layer.weight.shape, dtype=torch.float64)
        if self.style == "scales":
            weight *= 10 ** draw.uniform(-9, 9)
        elif self.style == "wide":
            weight *= 10 ** (8 * torch.rand(weight.shape, dtype=torch.float64) - 4)
        elif self.style == "signs":
            weight = weight.sign()
        elif self.style == "equal" and len(weight) > 1:
            weight[1] = weight[0] * draw.choice([1, 1, -1])
        elif self.style == "zero":
            weight[0] = 0
            weight *= draw.random() > 0.05
        layer.weight.data = weight
        return layer.to(self.dtype)

    def _add(self, layer: nn.Module) -> None:
        """Another linear layer."""
        layer = self._weight(layer)
        self._close()
        self.pending = matrix_of(layer, self.shape)
        self.network.parts.append(layer)
        with torch.no_grad():
            self.shape = tuple(layer(torch.zeros(1, *self.shape, dtype=self.dtype)).shape[1:])

    def _close(self) -> None:
        """A stage of the linear layer that waits for a nonlinearity, so that none is multiplied."""
        if self.pending is not None:
            self.network.stages.append(
                Stage(self.pending, torch.eye(len(self.pending)).double()[None])
            )
            self.pending = None

    def _linear(self) -> bool:
        """Another linear layer in front of a nonlinearity; whether it is one of images."""
        draw, bias = self.draw, self.draw.random() < 0.5
        if len(self.shape) == 1:
            self._add(nn.Linear(self.shape[0], draw.randint(1, 6), bias=bias))
            return False
        padding = draw.choice([0, 1])
        side = min(draw.choice([1, 2, 3]), min(self.shape[1:]) + 2 * padding)
        outputs, stride = draw.choice([1, 2]), draw.choice([1, 2])
        self._add(nn.Conv2d(self.shape[0], outputs, side, stride, padding, bias=bias))
        return True

    def _nonlinearity(self, image: bool) -> bool:
        """Another nonlinearity, if there is room for its products."""
        fitting = [kind for kind in self._kinds(image) if kind[1] <= self.left]
        pools = [kind for kind in fitting if isinstance(kind[0], nn.MaxPool2d)]
        if not fitting or self.pending is None:
            return False
        module, size, choices = self.draw.choice(
            pools if pools and self.draw.random() < 0.7 else fitting
        )
        self.left //= size
        self.network.stages.append(Stage(self.pending, choices()))
        self.network.parts.append(module)
        with torch.no_grad():
            self.shape = tuple(module(torch.zeros(1, *self.shape)).shape[1:])
        self.pending = None
        return True

    def _kinds(self, image: bool) -> Iterator[tuple[nn.Module, int, Callable[[], Tensor]]]:
        """Nonlinearities of the shape, with the number of their matrices at most, and these."""
        count, channels = prod(self.shape), self.shape[0]
        for slope in SLOPES:
            activation = nn.LeakyReLU(slope) if slope else nn.ReLU()
            yield activation, 2**count, partial(slopes, min(slope, 1.0), max(slope, 1.0), count)
        places = count // channels
        for module, group in ((MaxMin(), 2), (GroupSort(3), 3), (GroupSort(4), 4)):
            if channels % group == 0:
                groups = [
                    [(first + i) * places + place for i in range(group)]
                    for first in range(0, channels, group)
                    for place in range(places)
                ]
                yield module, factorial(group) ** len(groups), partial(orders, groups, count)
        if image and self.network.kind == "pooling":
            for side, step, edge in ((2, 2, 0), (2, 1, 0), (3, 2, 1)):
                if min(self.shape[1:]) + 2 * edge >= side:
                    windows = prod((s + 2 * edge - side) // step + 1 for s in self.shape[1:])
                    pool, size = (
                        nn.MaxPool2d(side, step, edge),
                        (side * side) ** (windows * channels),
                    )
                    yield pool, size, partial(maxima, side, step, edge, self.shape)

    def _gradient_step(self) -> bool:
        """``x - h W^T phi(W x + b)``."""
        weight = self._hidden_weight()
        if weight is None:
            return False
        step = torch.tensor(self.draw.choice([0.0, 0.5, 1.0, 2.0, 4.0]), dtype=self.dtype)
        slope = self.draw.choice([0.0, 0.25, 1.5])
        bias = torch.randn(len(weight), dtype=self.dtype)
        layer = GradientStep(weight, bias, nn.LeakyReLU(slope), step)
        self._branch(layer, weight, slope, -float(step) * weight.double().T)
        return True

    def _residual(self) -> bool:
        """``x + G phi(W x + b)``."""
        weight = self._hidden_weight()
        if weight is None:
            return False
        inner = nn.Linear(weight.shape[1], weight.shape[0], dtype=self.dtype)
        inner.weight.data = weight
        outer = self._weight(nn.Linear(len(weight), self.shape[0], bias=False))
        slope = self.draw.choice(SLOPES)
        layer = Residual(inner, nn.LeakyReLU(slope), outer)
        self._branch(layer, weight, slope, outer.weight.detach().double())
        return True

    def _hidden_weight(self) -> Tensor | None:
        """Into the units of a branch, if there is room for their patterns."""
        hidden = self.draw.randint(1, 6)
        if 2**hidden > self.left:
            return None
        self.left //= 2**hidden
        weight: Tensor = self._weight(nn.Linear(self.shape[0], hidden)).weight.detach()
        if self.style in ("scales", "wide"):  # beside the input, it should neither vanish nor rule
            weight = weight / weight.norm() * self.draw.choice([0.5, 1, 2])
        return weight

    def _branch(self, layer: nn.Module, weight: Tensor, slope: float, outer: Tensor) -> None:
        """Append a layer with a skip connection."""
        self._close()
        choices = slopes(min(slope, 1.0), max(slope, 1.0), len(weight))
        eye = torch.eye(self.shape[0], dtype=torch.float64)
        self.network.stages.append(Stage(weight.double(), choices, outer, eye))
        self.network.parts.append(layer)
        if self.network.kind == "gradient steps" and self.draw.random() < 0.3:
            self._add(nn.Linear(self.shape[0], self.draw.randint(1, 5)))
