"""Residual connections that check that the branch keeps the shape of its input."""

import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.errors import UnboundedModuleError
from onelip.lipschitz import LipschitzModule, bound_of_part
from onelip.norms.rounding import exact, upward


class WeightedResidual(LipschitzModule):
    """``skip * x + branch * fn(inner * x)``.

    Bound: ``|skip| + |branch inner| L``, L the bound of fn.
    Shape: that of fn, which must be its input's.
    Cost: that of fn.

    Args:
        fn: a module with a bound.
        skip: 0-d.
        branch: 0-d.
        inner: 0-d.

    Raises:
        ValueError: in ``forward``, fn changes the shape, which broadcasting would repeat.

    Example:
        >>> half = torch.tensor(0.5)
        >>> WeightedResidual(nn.ReLU(), half, half, torch.tensor(-1.0))(torch.tensor([[2.0, -2.0]]))
        tensor([[1., 0.]])
    """

    skip: Tensor
    branch: Tensor
    inner: Tensor

    def __init__(self, fn: nn.Module, skip: Tensor, branch: Tensor, inner: Tensor) -> None:
        super().__init__()
        self.fn = fn
        for name, value in (("skip", skip), ("branch", branch), ("inner", inner)):
            self.register_buffer(name, value.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``skip * x + branch * fn(inner * x)``."""
        return self.skip * x + self.branch * _same_shape(self.fn(self.inner * x), x)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        skip, branch, inner = (exact(t).abs().cpu() for t in (self.skip, self.branch, self.inner))
        # triangle inequality, and the chain rule for the branch
        return upward(skip + branch * inner * bound_of_part(self.fn), 3)

    def export(self) -> "WeightedResidual":
        """The residual with ``fn`` exported."""
        return WeightedResidual(export(self.fn), self.skip, self.branch, self.inner)


class MeanSquareResidual(LipschitzModule):
    r""":math:`\sqrt{(x^2 + f(x)^2) / 2 + \epsilon}`, elementwise.

    Bound: ``sqrt((1 + L^2) / 2)``, L the bound of f: as a function of two numbers the root has a
    gradient of length at most ``sqrt(1 / 2)``.
    Shape: that of f, which must be its input's.
    Cost: that of f.

    Args:
        fn: f, a module with a bound.
        eps: not negative; it makes the root smooth at 0.

    Raises:
        UnboundedModuleError: a negative eps, which makes the root steep without limit.
        ValueError: in ``forward``, f changes the shape, which broadcasting would repeat.

    Example:
        >>> MeanSquareResidual(nn.Identity(), eps=0.0)(torch.tensor([[3.0, -4.0]]))
        tensor([[3., 4.]])
    """

    def __init__(self, fn: nn.Module, *, eps: float) -> None:
        super().__init__()
        if not eps >= 0:
            raise UnboundedModuleError(f"a root of squares plus {eps} is steep without limit")
        self.fn, self.eps = fn, eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the root of the mean square of x and ``f(x)``."""
        y = _same_shape(self.fn(x), x)
        return torch.sqrt(0.5 * x**2 + 0.5 * y**2 + self.eps)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        return upward(((1 + bound_of_part(self.fn).square()) / 2).sqrt(), 4)

    def export(self) -> "MeanSquareResidual":
        """The residual with f exported."""
        return MeanSquareResidual(export(self.fn), eps=self.eps)


def _same_shape(y: Tensor, x: Tensor) -> Tensor:
    """Return y, if it has the shape of x: broadcasting would repeat numbers."""
    if y.shape != x.shape:
        raise ValueError(f"a residual branch turned {tuple(x.shape)} into {tuple(y.shape)}")
    return y
