"""Linear maps between images or vectors, with their adjoints: what networks are made of.

A map is called on a batch. ``affine`` adds the bias, which Lipschitz constants do not see. The
tensors may require gradients: estimates differentiate through them. ``exact`` is the same map in
float64, for proofs, with what rounding can do to it: for every x

    |computed map(x) - map(x)| <= map.rounding * |x| + map.underflow

in the Euclidean norm, and the same of the adjoint.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from onelip.errors import UnboundedModuleError
from onelip.norms.convolutions import Pair, convolution
from onelip.norms.rounding import UNDERFLOW, exact, frobenius, gamma, product, quotient, upward
from onelip.norms.spectral import dense

Shape = tuple[int, ...]


class LinearMap(abc.ABC):
    """A linear map from tensors of shape ``inputs`` to tensors of shape ``outputs``."""

    inputs: Shape
    outputs: Shape

    @abc.abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The image of a batch, ``(batch, *inputs)``."""

    @abc.abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """The image of a batch ``(batch, *outputs)`` under the adjoint."""

    def affine(self, x: Tensor) -> Tensor:
        """The map, plus its bias."""
        return self(x)

    def exact(self) -> Self:
        """Map in float64 on the CPU, detached."""
        return self

    @property
    def rounding(self) -> float:
        """Relative rounding error (top of the file); 0 for a map that only moves numbers."""
        return 0.0

    @property
    def underflow(self) -> float:
        """Loss to underflow, in Euclidean norm, per column."""
        return 2.0**-490 * (self.rounding > 0)

    def norm(self) -> Tensor | None:
        """A proved bound of the spectral norm, if there is a better way than writing it out."""
        return None

    @property
    def rows(self) -> int:
        """Number of outputs."""
        return math.prod(self.outputs)

    @property
    def columns(self) -> int:
        """Number of inputs."""
        return math.prod(self.inputs)


@dataclass(frozen=True)
class Scale(LinearMap):
    """Multiplication by a number, or by one per channel or entry (a tensor that broadcasts).

    A factor that is a quotient or a root was rounded: ``operations`` counts how often, in float64.
    """

    inputs: Shape
    factor: Tensor
    shift: Tensor | None = None
    operations: int = 0

    @property
    def outputs(self) -> Shape:  # type: ignore[override]
        """Shape of the outputs, that of the inputs."""
        return self.inputs

    def __call__(self, x: Tensor) -> Tensor:
        """``factor * x``."""
        return x * self.factor.to(x.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        """``factor * y``."""
        return self(y)

    def affine(self, x: Tensor) -> Tensor:
        """``factor * x + shift``."""
        return self(x) if self.shift is None else self(x) + self.shift.to(x.dtype)

    def exact(self) -> "Scale":
        """Map in float64 on the CPU."""
        return Scale(self.inputs, _exact(self.factor), _maybe(self.shift), self.operations)

    @property
    def rounding(self) -> float:
        """One product, and those of the factor."""
        return gamma(1 + self.operations) * float(self.factor.detach().abs().max())

    def norm(self) -> Tensor:
        """The largest factor."""
        largest = exact(self.factor).abs().max().cpu()
        return upward(largest, self.operations) if self.operations else largest


@dataclass(frozen=True)
class Dense(LinearMap):
    """``weight @ x`` on vectors."""

    weight: Tensor
    bias: Tensor | None = None

    @property
    def inputs(self) -> Shape:  # type: ignore[override]
        """One axis."""
        return (self.weight.shape[1],)

    @property
    def outputs(self) -> Shape:  # type: ignore[override]
        """One axis."""
        return (self.weight.shape[0],)

    def __call__(self, x: Tensor) -> Tensor:
        """``weight @ x``."""
        return F.linear(x, self.weight)

    def adjoint(self, y: Tensor) -> Tensor:
        """``weight.T @ y``."""
        return y @ self.weight

    def affine(self, x: Tensor) -> Tensor:
        """``weight @ x + bias``."""
        return F.linear(x, self.weight, self.bias)

    def exact(self) -> "Dense":
        """Map in float64 on the CPU."""
        return Dense(_exact(self.weight), _maybe(self.bias))

    @cached_property
    def rounding(self) -> float:
        """Sums of as many products as the longer side."""
        return error_of_product(max(self.weight.shape), float(frobenius(exact(self.weight))))

    def norm(self) -> Tensor:
        """Spectral norm of the matrix."""
        return dense(self.weight).cpu()


@dataclass(frozen=True)
class Along(LinearMap):
    """``weight`` times the numbers along one axis, at each place of the other axes.

    Entries that are quotients were rounded: ``operations`` counts how often, in float64.
    """

    inputs: Shape
    axis: int
    weight: Tensor
    operations: int = 0

    @property
    def outputs(self) -> Shape:  # type: ignore[override]
        """The axis has as many numbers as the matrix has rows."""
        return (*self.inputs[: self.axis], len(self.weight), *self.inputs[self.axis + 1 :])

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply."""
        return self._times(x, self.weight)

    def adjoint(self, y: Tensor) -> Tensor:
        """Multiply by the transposed matrix."""
        return self._times(y, self.weight.T)

    def exact(self) -> "Along":
        """Map in float64 on the CPU."""
        return replace(self, weight=_exact(self.weight))

    @cached_property
    def rounding(self) -> float:
        """Each place has its own sums of as many products as the longer side."""
        terms = max(self.weight.shape) + self.operations
        return error_of_product(terms, float(frobenius(exact(self.weight))))

    def norm(self) -> Tensor:
        """Norm of the matrix, and what the rounding of its entries may add."""
        norm = dense(self.weight).cpu()
        if not self.operations:
            return norm
        size = frobenius(exact(self.weight)).cpu()
        return upward(norm + gamma(self.operations) * size, 4)

    def _times(self, x: Tensor, matrix: Tensor) -> Tensor:
        image: Tensor = F.linear(x.movedim(self.axis + 1, -1), matrix.to(x))
        return image.movedim(-1, self.axis + 1)


def convolved(
    inputs: Shape, weight: Shape, padding: Shape, dilation: Shape, stride: Shape
) -> Shape:
    """Shape of the outputs of a convolution along any number of axes, padded on both sides."""
    axes = zip(inputs[1:], padding, dilation, weight[2:], stride, strict=True)
    sides = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, p, d, k, s in axes)
    return (weight[0], *sides)


@dataclass(frozen=True)
class Convolution(LinearMap):
    """``conv2d`` on images ``(channels, height, width)``, padded on both sides of each axis."""

    inputs: Shape
    weight: Tensor
    bias: Tensor | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    circular: bool = False

    @property
    def outputs(self) -> Shape:  # type: ignore[override]
        """Channels, height, width."""
        settings = self.padding, self.dilation, self.stride
        return convolved(self.inputs, self.weight.shape, *settings)

    def __call__(self, x: Tensor) -> Tensor:
        """The convolution."""
        return self._convolved(x, None)

    def affine(self, x: Tensor) -> Tensor:
        """Convolution with the bias."""
        return self._convolved(x, self.bias)

    def adjoint(self, y: Tensor) -> Tensor:
        """The gradient of the convolution with respect to its input."""
        wrapped = self.padding if self.circular else (0, 0)
        height, width = (n + 2 * p for n, p in zip(self.inputs[1:], wrapped, strict=True))
        x: Tensor = conv2d_input(
            (len(y), self.inputs[0], height, width),
            self.weight,
            y,
            self.stride,
            (0, 0) if self.circular else self.padding,
            self.dilation,
            self.groups,
        )
        rows, columns = self.padding
        return unwrapped(x, ((rows, rows), (columns, columns))) if self.circular else x

    def exact(self) -> "Convolution":
        """Map in float64 on the CPU."""
        return replace(self, weight=_exact(self.weight), bias=_maybe(self.bias))

    @cached_property
    def rounding(self) -> float:
        """Each output is a product of the kernel and a patch, whose pixels may repeat."""
        outputs, columns, height, width = self.weight.shape
        terms = max(columns, outputs // self.groups) * height * width + (9 if self.circular else 0)
        size = float(frobenius(exact(self.weight).flatten(1)))
        patches = math.prod(self.outputs[1:]) * height * width
        return error_of_product(terms, size * math.sqrt(patches))

    def norm(self) -> Tensor:
        """Norm of the convolution on images of this size."""
        return convolution(
            self.weight,
            image_size=(self.inputs[1], self.inputs[2]),
            padding=self.padding,
            padding_mode="circular" if self.circular else "zeros",
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        ).cpu()

    def _convolved(self, x: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        if self.circular and any(padding):
            x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), mode="circular")
            padding = (0, 0)
        return F.conv2d(x, self.weight, bias, self.stride, padding, self.dilation, self.groups)


@dataclass(frozen=True)
class Taking(LinearMap, abc.ABC):
    """Output i is input ``index[i]``, or 0 where the index is -1."""

    inputs: Shape
    outputs: Shape
    index: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Take."""
        taken = x.flatten(1)[:, self.index.clamp_min(0)] * (self.index >= 0)
        image: Tensor = taken.unflatten(1, self.outputs)
        return image

    def adjoint(self, y: Tensor) -> Tensor:
        """Put back, and add what was repeated."""
        kept = self.index >= 0
        x = y.new_zeros(len(y), self.columns)
        x = x.index_add(1, self.index[kept], y.flatten(1)[:, kept])
        image: Tensor = x.unflatten(1, self.inputs)
        return image

    def exact(self) -> Self:
        """Map with its index on the CPU."""
        return replace(self, index=self.index.cpu())


@dataclass(frozen=True)
class Gather(Taking):
    """Moves numbers, each at most once."""

    def __post_init__(self) -> None:
        taken = self.index[self.index >= 0]
        if len(taken) != len(taken.unique()):
            raise ValueError("Gather takes each number at most once")

    def norm(self) -> Tensor:
        """At most 1."""
        return torch.ones((), dtype=torch.float64)


@dataclass(frozen=True)
class Repeat(Taking):
    """Moves and repeats numbers."""

    @cached_property
    def most(self) -> int:
        """Largest number of times that one input is taken."""
        taken = self.index[self.index >= 0]
        return int(taken.bincount().max()) if len(taken) else 0

    @property
    def rounding(self) -> float:
        """Rounding of the sums in the adjoint."""
        return gamma(self.most) * math.sqrt(self.most)

    def norm(self) -> Tensor:
        """The root of the largest number of repetitions: the columns are orthogonal."""
        return upward(torch.tensor(float(self.most), dtype=torch.float64).sqrt(), 1)


@dataclass(frozen=True)
class Adjoint(LinearMap):
    """The adjoint of another map, such as a transposed convolution, with a bias of its own."""

    of: LinearMap
    bias: Tensor | None = None

    @property
    def inputs(self) -> Shape:  # type: ignore[override]
        """The outputs of the other."""
        return self.of.outputs

    @property
    def outputs(self) -> Shape:  # type: ignore[override]
        """The inputs of the other."""
        return self.of.inputs

    def __call__(self, x: Tensor) -> Tensor:
        """The adjoint."""
        return self.of.adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """The map itself."""
        return self.of(y)

    def affine(self, x: Tensor) -> Tensor:
        """The adjoint, plus one number per channel."""
        y = self(x)
        if self.bias is None:
            return y
        return y + self.bias.to(y.dtype).view(-1, *(1,) * (y.ndim - 2))

    def exact(self) -> "Adjoint":
        """Map in float64 on the CPU."""
        return Adjoint(self.of.exact(), _maybe(self.bias))

    @property
    def rounding(self) -> float:
        """Rounding of the other map, known for both directions."""
        return self.of.rounding

    def norm(self) -> Tensor | None:
        """Norm of the other map."""
        return self.of.norm()


@dataclass(frozen=True)
class Reshape(LinearMap):
    """Change of shape; the identity where the shapes are equal."""

    inputs: Shape
    outputs: Shape

    def __call__(self, x: Tensor) -> Tensor:
        """Reshape."""
        return x.reshape(len(x), *self.outputs)

    def adjoint(self, y: Tensor) -> Tensor:
        """Reshape back."""
        return y.reshape(len(y), *self.inputs)

    def norm(self) -> Tensor:
        """1."""
        return torch.ones((), dtype=torch.float64)


@dataclass(frozen=True)
class GroupMean(LinearMap):
    """Each channel's mean over its group of neighbours, or what remains without it."""

    inputs: Shape
    size: int
    remainder: bool = False

    @property
    def outputs(self) -> Shape:  # type: ignore[override]
        """Shape of the outputs, that of the inputs."""
        return self.inputs

    def __call__(self, x: Tensor) -> Tensor:
        """Average."""
        groups: Tensor = x.unflatten(1, (-1, self.size))
        mean = groups.mean(2, keepdim=True).expand_as(groups)
        return (groups - mean if self.remainder else mean).flatten(1, 2)

    def adjoint(self, y: Tensor) -> Tensor:
        """The map is an orthogonal projection."""
        return self(y)

    @property
    def rounding(self) -> float:
        """A sum, a quotient and a difference."""
        return 2 * gamma(self.size + 3) * math.sqrt(self.size)

    def norm(self) -> Tensor:
        """1."""
        return torch.ones((), dtype=torch.float64)


@dataclass(frozen=True)
class Combination(LinearMap, abc.ABC):
    """A map made of maps, what composition and sum share."""

    maps: tuple[LinearMap, ...]

    @property
    def inputs(self) -> Shape:  # type: ignore[override]
        """Inputs of the first map."""
        return self.maps[0].inputs

    @property
    def outputs(self) -> Shape:  # type: ignore[override]
        """Outputs of the last map."""
        return self.maps[-1].outputs

    @property
    def rounding(self) -> float:
        """Refuse: the rounding of the whole depends on the norms of its parts."""
        raise TypeError("go through the parts of a composition or a sum")

    def exact(self) -> Self:
        """Map in float64 on the CPU."""
        return replace(self, maps=tuple(linear.exact() for linear in self.maps))


@dataclass(frozen=True)
class Composition(Combination):
    """Maps one after the other, the first first."""

    def __call__(self, x: Tensor) -> Tensor:
        """Apply in turn."""
        for linear in self.maps:
            x = linear(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply the adjoints, the last first."""
        for linear in reversed(self.maps):
            y = linear.adjoint(y)
        return y

    def affine(self, x: Tensor) -> Tensor:
        """Image with all biases."""
        for linear in self.maps:
            x = linear.affine(x)
        return x


@dataclass(frozen=True)
class Sum(Combination):
    """The sum of maps between the same shapes."""

    def __call__(self, x: Tensor) -> Tensor:
        """Add the images."""
        return torch.stack([linear(x) for linear in self.maps]).sum(0)

    def adjoint(self, y: Tensor) -> Tensor:
        """Add the images under the adjoints."""
        return torch.stack([linear.adjoint(y) for linear in self.maps]).sum(0)

    def affine(self, x: Tensor) -> Tensor:
        """Image with all biases."""
        return torch.stack([linear.affine(x) for linear in self.maps]).sum(0)


@dataclass(frozen=True)
class BoundedSum(Sum):
    """A sum of which a smaller bound is known than the sum of the norms.

    Attributes:
        bound: of the norm, if one is known.
    """

    bound: Tensor | None = None

    def norm(self) -> Tensor | None:
        """The bound, if one is known."""
        return self.bound


@dataclass(frozen=True)
class TruncatedExponential(BoundedSum):
    """The sum of ``A^k / k!`` for k < ``terms``, by Horner's rule; A is ``base``, a skew map."""

    base: Convolution | None = None
    terms: int = 0


def identity(shape: Shape) -> Reshape:
    """The map that changes nothing."""
    return Reshape(shape, shape)


def composed(maps: Sequence[LinearMap]) -> LinearMap:
    """Maps one after the other, without nesting and without identities."""
    flat: list[LinearMap] = []
    for linear in maps:
        flat += linear.maps if isinstance(linear, Composition) else [linear]
    kept = [m for m in flat if not (isinstance(m, Reshape) and m.inputs == m.outputs)]
    if not kept:
        return flat[0]
    return kept[0] if len(kept) == 1 else Composition(tuple(kept))


def reciprocal(numbers: Tensor) -> Tensor:
    """``1 / numbers``, entry by entry, each rounded away from 0."""
    wanted = [quotient(1, abs(float(n))) * (1 if n > 0 else -1) for n in exact(numbers).flatten()]
    return torch.stack(wanted).reshape(numbers.shape)


def error_of_product(terms: int, size: float) -> float:
    """What rounding does to sums of products, relative to the input, in Euclidean norm."""
    return float(upward(torch.tensor(gamma(terms + 2) * size, dtype=torch.float64), 8)) + UNDERFLOW


def _exact(tensor: Tensor) -> Tensor:
    return exact(tensor).cpu()


def _maybe(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else _exact(tensor)


def unwrapped(x: Tensor, sides: tuple[Pair, Pair]) -> Tensor:
    """The adjoint of circular padding: what was copied is added back.

    Args:
        x: ``(batch, channels, height, width)``, padded.
        sides: pixels above and below, left and right.
    """
    for axis, (first, last) in zip((2, 3), sides, strict=True):
        if first or last:
            before, middle, after = x.split([first, x.shape[axis] - first - last, last], axis)
            x = middle.clone()
            x.narrow(axis, x.shape[axis] - first, first).add_(before)
            x.narrow(axis, 0, last).add_(after)
    return x


def norm_of_parts(linear: LinearMap) -> Tensor:
    """Proved bound of the norm of a map: products over its factors, sums over its terms.

    Raises:
        UnboundedModuleError: nothing is known of the norm of a part.
    """
    if isinstance(linear, Composition):
        return product([norm_of_parts(part) for part in linear.maps])
    if isinstance(linear, Sum) and linear.norm() is None:
        total = torch.stack([norm_of_parts(part) for part in linear.maps]).sum()
        return upward(total, len(linear.maps))
    norm = linear.norm()
    if norm is None:
        raise UnboundedModuleError(f"no norm is known for {type(linear).__name__}")
    return norm
