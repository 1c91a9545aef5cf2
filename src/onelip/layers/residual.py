"""Residual connections around any module with a bound, whose sums stay as Lipschitz as their parts.

Plain ``x + f(x)`` is ``(1 + L)``-Lipschitz. A sum with weights that add up to 1, the root of a mean
square, branches on channels of their own, and branches side by side divided by a root are as
Lipschitz as the branches. A map, an activation and the adjoint of the map are ``AdjointResidual``,
which needs no weights.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.errors import UnboundedModuleError, UsageError
from onelip.forward_error import ABOVE, Computed, Local, Run, Size
from onelip.layers.composite import Composite, followed
from onelip.layers.gradient_step import times
from onelip.layers.options import FactoryOptions
from onelip.layers.pooling import quotient_below
from onelip.lipschitz import bound_of_part
from onelip.norms.rounding import exact, upward


class Residual(Composite):
    r"""Convex sum :math:`s\, x + (1 - s)\, f(x)` with a trained share s between 0 and 1.

    The share is a sigmoid, taken such that s and 1 - s as they are computed add up to 1 exactly.

    Bound: ``s + (1 - s) L``, L the bound of f: 1 for every s, if f is 1-Lipschitz.
    Shape: that of f, which must be its input's.
    Cost: that of f, and a few elementwise operations.

    Args:
        block: f, a module with a bound: a layer, or an ``nn.Sequential`` of them.
        skip: the first value of s, strictly between 0 and 1.
        trained: make the share a parameter; else it stays as it is.
        **factory: ``device`` and ``dtype`` of the share.

    Raises:
        ValueError: a skip outside of (0, 1); in ``forward``, f changes the shape, which
            broadcasting would repeat.

    Example:
        >>> import onelip
        >>> block = nn.Sequential(onelip.layers.CholeskyLinear(4, 4), onelip.layers.MaxMin())
        >>> bool(onelip.lipschitz_bound(Residual(block)) < 1 + 1e-6)
        True
    """

    def __init__(
        self,
        block: nn.Module,
        skip: float = 0.5,
        *,
        trained: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        if not 0 < skip < 1:
            raise ValueError(f"skip must be between 0 and 1, got {skip}")
        self.block = block
        logit = torch.tensor(math.log(skip) - math.log1p(-skip), **factory)
        self.logit = nn.Parameter(logit, requires_grad=trained)

    def shares(self) -> tuple[Tensor, Tensor]:
        """Return s and 1 - s, which add up to 1 exactly.

        If s is at most 1/2, then 1 - s may be rounded, and is at least 1/2; a difference of two
        numbers within a factor of 2 is exact (Sterbenz), so that the s in use is exactly 1 minus
        that. If s is larger, both differences are exact.
        """
        branch = 1 - self.logit.sigmoid()
        return 1 - branch, branch

    def forward(self, x: Tensor) -> Tensor:
        """Return ``s x + (1 - s) f(x)``."""
        skip, branch = self.shares()
        y = same_shape(self.block(x.clone()), x)  # a block may work in place
        return skip * x + branch * y

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        return _weighted(*self.shares(), bound_of_part(self.block))

    @override
    @torch.no_grad()
    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> "WeightedResidual":
        return WeightedResidual(convert(self.block), *self.shares())


class WeightedResidual(Composite):
    """``skip * x + branch * fn(inner * x)`` with fixed numbers, to which ``Residual`` exports.

    Bound: ``|skip| + |branch inner| L``, L the bound of fn.
    Shape: that of fn, which must be its input's.
    Cost: that of fn.

    Args:
        fn: a module with a bound.
        skip: 0-d.
        branch: 0-d.
        inner: 0-d; None for 1.

    Raises:
        ValueError: in ``forward``, fn changes the shape, which broadcasting would repeat.

    Example:
        >>> half = torch.tensor(0.5)
        >>> WeightedResidual(nn.ReLU(), half, half, torch.tensor(-1.0))(torch.tensor([[2.0, -2.0]]))
        tensor([[1., 0.]])
    """

    same_in_float64 = True

    skip: Tensor
    branch: Tensor
    inner: Tensor | None

    def __init__(
        self, fn: nn.Module, skip: Tensor, branch: Tensor, inner: Tensor | None = None
    ) -> None:
        super().__init__()
        self.fn = fn
        for name, value in (("skip", skip), ("branch", branch), ("inner", inner)):
            self.register_buffer(name, None if value is None else value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``skip * x + branch * fn(inner * x)``."""
        y = self.fn(x.clone() if self.inner is None else self.inner * x)
        return self.skip * x + self.branch * same_shape(y, x)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        # triangle inequality, and the chain rule for the branch
        norm = bound_of_part(self.fn)
        if self.inner is not None:
            norm = upward(exact(self.inner).abs().cpu() * norm, 1)
        return _weighted(self.skip, self.branch, norm)

    @override
    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> "WeightedResidual":
        return WeightedResidual(convert(self.fn), self.skip, self.branch, self.inner)

    def forward_error(self, run: Run) -> Local:
        """Rounding of the branch, times its weight, and of two products and a sum."""
        skip, branch = (float(exact(n).abs()) for n in (self.skip, self.branch))
        x = run.x
        if self.inner is not None:
            x = times(x, float(exact(self.inner)), run.arithmetic)
        end = followed(self.fn, x, run)
        size = skip * run.x.reach + branch * end.reach
        error = branch * end.error + run.rounding(2, size * ABOVE)
        return Local(branch * end.offset * ABOVE, error * ABOVE)


class MeanSquareResidual(Composite):
    r""":math:`\sqrt{(x^2 + f(x)^2) / 2 + \epsilon}`, elementwise.

    Bound: ``sqrt((1 + L^2) / 2)``, L the bound of f: as a function of two numbers the root has a
    gradient of length at most ``sqrt(1 / 2)``.
    Shape: that of f, which must be its input's.
    Cost: that of f.

    Args:
        fn: f, a module with a bound.
        eps: not negative; it makes the root smooth at 0, where with 0 it has no gradient.

    Raises:
        UnboundedModuleError: a negative eps, which makes the root steep without limit.
        ValueError: in ``forward``, f changes the shape, which broadcasting would repeat.

    Example:
        >>> MeanSquareResidual(nn.Identity(), eps=0.0)(torch.tensor([[3.0, -4.0]]))
        tensor([[3., 4.]])
    """

    same_in_float64 = True

    def __init__(self, fn: nn.Module, *, eps: float = 1e-6) -> None:
        super().__init__()
        if not 0 <= eps < math.inf:
            raise UnboundedModuleError(f"a root of squares plus {eps} is steep without limit")
        self.fn, self.eps = fn, eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the root of the mean square of x and ``f(x)``."""
        y = same_shape(self.fn(x.clone()), x)  # f may work in place
        return (0.5 * x.square() + 0.5 * y.square() + self.eps).sqrt()

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        norm = bound_of_part(self.fn)
        root = upward(((1 + norm.square()) / 2).sqrt(), 4)
        return root if norm > 1 else torch.minimum(root, torch.ones_like(root))

    @override
    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> "MeanSquareResidual":
        return MeanSquareResidual(convert(self.fn), eps=self.eps)

    def forward_error(self, run: Run) -> Local:
        """Rounding of a root of squares; what underflows changes it by ``sqrt(6 lost)``."""
        end = followed(self.fn, run.x, run)
        run.arithmetic.check(2 * run.x.reach * run.x.reach)
        run.arithmetic.check(2 * end.reach * end.reach)
        smooth = math.sqrt(self.eps * run.count)
        size = _length([run.x.reach, end.reach]) + smooth
        lost = math.sqrt(6 * run.arithmetic.lost * run.count)
        error = end.error + run.rounding(6, size * ABOVE) + lost
        return Local((end.offset + smooth) * ABOVE, error * ABOVE)


class Split(Composite):
    """Parts side by side, each on channels of its own: ``cat([f(x_1), g(x_2), ...])``.

    With ``nn.Identity()`` for a part, its channels go past the others.

    Bound: the largest of the parts' bounds.
    Shape: ``(batch, channels, ...)``; outputs are joined along the channels.
    Cost: that of the parts.

    Args:
        parts: modules with a bound, one for each run of channels.
        sizes: channels of each part; equal shares by default.

    Raises:
        UsageError: no parts, or not as many positive sizes.
        ValueError: in ``forward``, channels that the sizes do not add up to, or that do not
            divide.

    Example:
        >>> Split([nn.Identity(), nn.ReLU()])(torch.tensor([[-1.0, -2.0]]))
        tensor([[-1.,  0.]])
    """

    same_in_float64 = True

    def __init__(self, parts: Iterable[nn.Module], sizes: Iterable[int] | None = None) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.sizes = None if sizes is None else tuple(sizes)
        if not len(self.parts):
            raise UsageError("no parts: give one or more")
        if self.sizes is not None and (len(self.sizes) != len(self.parts) or min(self.sizes) < 1):
            raise UsageError(f"{len(self.parts)} parts take as many sizes, got {self.sizes}")

    def channels_of(self, channels: int) -> list[int]:
        """Return the channels of each part.

        Raises:
            ValueError: they are not those that the parts were made for.
        """
        count = len(self.parts)
        if self.sizes is None and channels % count:
            raise ValueError(f"{channels} channels do not divide into {count} equal parts: sizes=")
        sizes = [channels // count] * count if self.sizes is None else list(self.sizes)
        if sum(sizes) != channels:
            raise ValueError(f"parts of {sizes} channels, got {channels}")
        return sizes

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all parts, joined along the channels."""
        pieces = x.split(self.channels_of(x.shape[1]), 1)
        ends = [part(piece.clone()) for part, piece in zip(self.parts, pieces, strict=True)]
        return torch.cat(ends, 1)

    def lipschitz_bound(self) -> Tensor:
        """Return the largest of the bounds."""
        return torch.stack([bound_of_part(part) for part in self.parts]).max()

    @override
    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> "Split":
        return Split(map(convert, self.parts), self.sizes)

    def forward_error(self, run: Run) -> Local:
        """Rounding of the parts, side by side."""
        ends, start = [], 0
        for part, size in zip(self.parts, self.channels_of(run.x.shape[0]), strict=True):
            near = run.x.near
            if near is not None:
                near = replace(near, point=near.point[:, start : start + size])
            piece = Computed((size, *run.x.shape[1:]), run.x.reach, near=near)
            ends.append(followed(part, piece, run))
            start += size
        offset = float(_length([end.offset for end in ends]))
        return Local(offset, _length([end.error for end in ends]))


class Concatenated(Composite):
    r"""Several parts of one input, divided by a root: ``cat([f(x), g(x), ...]) / sqrt(n)``.

    The norm of the joined vector is the root of the sum of n squares, so that a part counts like in
    a mean. With ``nn.Identity()`` for a part, the input is kept.

    Bound: the root of the mean square of the parts' bounds.
    Shape: that of the parts' outputs, joined along the channels.
    Cost: that of the parts.

    Args:
        parts: modules with a bound.

    Raises:
        UsageError: no parts.

    Example:
        >>> Concatenated([nn.Identity(), nn.ReLU()])(torch.tensor([[2.0]]))
        tensor([[1.4142, 1.4142]])
    """

    same_in_float64 = True

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        if not len(self.parts):
            raise UsageError("no parts: give one or more")

    @property
    def scale(self) -> float:
        """``1 / sqrt(n)``, rounded down to a number that float32 holds: the same in float64."""
        return quotient_below(1, len(self.parts))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of all parts, scaled and joined along the channels."""
        ends = [part(x.clone()) for part in self.parts]
        return torch.cat(ends, 1) * self.scale

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        bounds = [bound_of_part(part) for part in self.parts]
        if sum(Fraction(float(b)) ** 2 for b in bounds) * Fraction(self.scale) ** 2 <= 1:
            one = torch.ones((), dtype=torch.float64)
            return torch.minimum(one, self._root(torch.stack(bounds)))
        return self._root(torch.stack(bounds))

    def _root(self, bounds: Tensor) -> Tensor:
        return upward(bounds.square().sum().sqrt() * self.scale, len(self.parts) + 4)

    def forward_error(self, run: Run) -> Local:
        """Rounding of the parts, side by side, and of one product."""
        ends = [followed(part, run.x, run) for part in self.parts]
        size = self.scale * _length([end.reach for end in ends])
        error = self.scale * _length([end.error for end in ends]) + run.rounding(1, size * ABOVE)
        offset = self.scale * float(_length([end.offset for end in ends])) * ABOVE
        return Local(offset, error * ABOVE)

    @override
    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> "Concatenated":
        return Concatenated(map(convert, self.parts))


def same_shape(y: Tensor, x: Tensor) -> Tensor:
    """Return y, if it has the shape of x: broadcasting would repeat numbers.

    Raises:
        ValueError: it has another shape.
    """
    if y.shape != x.shape:
        raise ValueError(f"a residual branch turned {tuple(x.shape)} into {tuple(y.shape)}")
    return y


def _weighted(skip: Tensor, branch: Tensor, norm: Tensor) -> Tensor:
    """``|skip| + |branch| norm``, rounded up; at most 1 where exact arithmetic says so."""
    first, second = (exact(number).abs().cpu() for number in (skip, branch))
    total = upward(first + second * norm, 3)
    whole = Fraction(float(first)) + Fraction(float(second)) * Fraction(float(norm))
    return torch.minimum(total, torch.ones_like(total)) if whole <= 1 else total


def _length(numbers: list[Size]) -> Size:
    """Upper bound of the length of a vector of parts with these lengths."""
    total: Size = sum(number * number for number in numbers)
    return (total**0.5) * ABOVE
