r"""An optimiser whose matrices are orthogonal after each step.

Muon (Jordan et al., 2024) makes all singular values of an update equal. On the Stiefel manifold of
matrices with orthonormal columns (Bernstein, "Modular manifolds", 2025) the momentum is made
tangent first,

.. math:: T = M - W\, \mathrm{sym}(W^T M) ,

its polar factor is made tangent again and taken as the step, and the Q of a Cholesky factor brings
the result back: Y = W - lr D has :math:`Y^T Y = I + lr^2 D^T D`, which is never close to singular.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from onelip.errors import UsageError
from onelip.layers.orthogonal import bjorck, cholesky_qr, oriented

_ITERATIONS = 10  # towards the polar factor of the momentum


class StiefelMuon(Optimizer):
    r"""Momentum on matrices that stay orthogonal, with updates whose singular values are equal.

    Weights have orthonormal columns, or rows if they are wide: at once when the optimiser is made,
    and after each step, whatever the gradients. So a linear layer with such a weight is
    1-Lipschitz; ``onelip.lipschitz_bound`` proves it for the numbers that are there.

    Bound: the norm of each weight is at most 1 + 1e-5 in float32, after any number of steps.
    Cost: about 30 products of the smaller side squared times the larger, a step.

    Args:
        params: matrices; give biases, kernels and all else to another optimiser.
        lr: the norm of an update, about: 0.01 to 0.1, since all singular values count.
        momentum: share of the last direction that is kept, at least 0 and below 1.

    Raises:
        UsageError: a parameter that is no real matrix, in ``float32`` or ``float64``; an argument
            out of range.

    Example:
        >>> import onelip
        >>> layer = torch.nn.Linear(8, 4)
        >>> optimiser = StiefelMuon([layer.weight], lr=0.1)
        >>> layer(torch.randn(2, 8)).square().sum().backward()
        >>> optimiser.step()
        >>> bool(onelip.lipschitz_bound(layer) < 1 + 1e-5)
        True

    Reference: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        *,
        momentum: float = 0.9,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add matrices, which are made orthogonal.

        Raises:
            UsageError: as in the constructor.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if not group["lr"] >= 0 or not 0 <= group["momentum"] < 1:
            raise UsageError(
                f"lr must not be negative, momentum at least 0 and below 1, got {group['lr']} and "
                f"{group['momentum']}"
            )
        for parameter in group["params"]:
            if parameter.ndim != 2 or parameter.dtype not in (torch.float32, torch.float64):
                raise UsageError(
                    f"a parameter of shape {tuple(parameter.shape)} and {parameter.dtype} is no "
                    "matrix in float32 or float64: give it to another optimiser"
                )
            with torch.no_grad():
                parameter.copy_(_orthogonal(parameter))

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; a gradient that is not finite changes nothing.

        Args:
            closure: evaluates the loss anew, with its gradients.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is not None and bool(gradient.isfinite().all()):
                    self._move(parameter, gradient, group["lr"], group["momentum"])
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, lr: float, momentum: float) -> None:
        peak = gradient.abs().max()
        if peak > 0:  # squares of large numbers overflow, and of small ones vanish
            gradient = gradient / peak
        held = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        held.mul_(momentum).add_(gradient, alpha=float(peak))
        if not held.isfinite().all():
            held.zero_()
            return
        rows, columns = parameter.shape
        weight, mean = (oriented(m, rows, columns) for m in (parameter, held))  # tall ones
        largest = mean.abs().max()
        direction = _tangent(weight, mean / largest) if largest > 0 else mean
        direction = _tangent(weight, bjorck(direction[None], iterations=_ITERATIONS)[0])
        moved = _orthogonal(weight - lr * direction)
        if moved.isfinite().all():
            parameter.copy_(oriented(moved, rows, columns))


def _tangent(weight: Tensor, direction: Tensor) -> Tensor:
    """The part of a direction along which ``W^T W`` stays the identity, to first order."""
    inner = weight.mT @ direction
    return direction - weight @ (inner + inner.mT) / 2


def _orthogonal(matrix: Tensor) -> Tensor:
    """The Q of a matrix, or of its transpose if it is wide, and one step towards the polar factor.

    The step ``Q (3 - Q^T Q) / 2`` squares what rounding left.
    """
    rows, columns = matrix.shape
    q = cholesky_qr(oriented(matrix, rows, columns)[None])[0]
    q = 1.5 * q - 0.5 * q @ (q.mT @ q)
    return oriented(q, rows, columns)
