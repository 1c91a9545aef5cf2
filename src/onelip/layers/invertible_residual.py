r"""Residual blocks x + g(x) with a contraction g: bijections whose inverse has a proved error.

Banach's theorem (Behrmann et al., 2019): with :math:`L < 1` the constant of g, the iteration
:math:`x \leftarrow y - g(x)` converges to the inverse of y, and for every x

.. math:: |x - F^{-1}(y)| \le \frac{|x + g(x) - y|}{1 - L}.

As computed the residual is off by the rounding of g, of a sum and of a difference, so that the
bound holds for the x that was found, however it was found.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.errors import NotApplicableError, UnboundedModuleError, UsageError
from onelip.forward_error import ABOVE, Arithmetic, Computed, Local, Run, lengths
from onelip.layers.composite import Composite, followed
from onelip.layers.residual import same_shape
from onelip.lipschitz import bound_of_part, finite, refuse_hidden_behaviour
from onelip.norms.rounding import upward

_LARGEST = 128  # numbers of an input whose Jacobian is written out


class Inverse(NamedTuple):
    """Result of an inversion.

    Attributes:
        x: ``(batch, ...)``, near the inverse.
        error: ``(batch,)`` float64 on the CPU, a proved bound of the distance to the exact inverse.
    """

    x: Tensor
    error: Tensor


@dataclass(frozen=True)
class LogDeterminantEstimate:
    """Log-determinants by random probes: no bound, and no number that a certificate takes.

    Attributes:
        mean: ``(batch,)``, the mean over the probes of a series cut off.
        deviation: ``(batch,)``, standard error of that mean; NaN for one probe.
        truncation: no more is left out by cutting the series off, in exact arithmetic.
    """

    mean: Tensor
    deviation: Tensor
    truncation: float


class InvertibleResidual(Composite):
    """``x + g(x)`` with a contraction g, which is a bijection.

    Bound: ``1 + L``, L the bound of g; that of the inverse is ``1 / (1 - L)``.
    Shape: that of g, which must be its input's.
    Cost: that of g; ``inverse`` takes about ``16 / -log10(L)`` passes in float64.

    Args:
        block: g, a module with a bound below 1: layers and ``Rescale(0.9, trained=False)``.

    Raises:
        ValueError: in ``forward``, g changes the shape.

    Example:
        >>> import onelip
        >>> block = nn.Sequential(nn.Tanh(), onelip.layers.Rescale(0.5, trained=False))
        >>> layer = InvertibleResidual(block).eval()
        >>> x, error = layer.inverse(torch.tensor([[1.0, -2.0]]))
        >>> bool(error < 1e-5)
        True

    Reference: Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen, "Invertible Residual Networks", ICML
    2019.
    """

    same_in_float64 = True

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x + g(x)``."""
        return x + same_shape(self.block(x.clone()), x)  # a block may work in place

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        return upward(1 + bound_of_part(self.block), 1)

    @override
    def with_parts(self, convert: Callable[[nn.Module], nn.Module]) -> "InvertibleResidual":
        return InvertibleResidual(convert(self.block))

    def forward_error(self, run: Run) -> Local:
        """Rounding of the branch and of one sum."""
        end = followed(self.block, run.x, run)
        size = (run.x.reach + end.reach) * ABOVE
        return Local(end.offset, (end.error + run.rounding(1, size)) * ABOVE)

    def contraction(self) -> float:
        """Return L, the proved constant of g.

        Raises:
            UnboundedModuleError: it is not below 1: the layer may not be invertible.
        """
        refuse_hidden_behaviour(self)
        constant = float(finite(bound_of_part(self.block), "the branch"))
        if not constant < 1:
            raise UnboundedModuleError(
                f"the branch has the constant {constant:.6g}: below 1 is asked for an inverse, "
                "Rescale(0.9, trained=False) after it helps"
            )
        return constant

    @torch.no_grad()
    def inverse(self, y: Tensor, *, iterations: int = 1000) -> Inverse:
        """Return the inverse of a batch, with a proved error that counts rounding.

        Exported layers have the rules for rounding: ``onelip.export(model)`` first. In float64 the
        error is some ``1e-15 / (1 - L)`` of the numbers.

        Cost: a pass of g for each iteration, until nothing changes.

        Args:
            y: ``(batch, ...)`` in float32 or float64 on the CPU, in the dtype of the layer.
            iterations: at most.

        Raises:
            UnboundedModuleError: g is no contraction, or nothing is known of its rounding.
            UsageError: training mode, another dtype or device, or numbers that are not finite.
        """
        self._refuse_training()
        if y.dtype not in (torch.float32, torch.float64) or y.device.type != "cpu":
            raise UsageError(f"inverts float32 or float64 on the CPU, not {y.dtype} on {y.device}")
        if iterations < 1 or not bool(y.isfinite().all()):
            raise UsageError("a positive number of iterations and finite numbers are asked")
        constant, x = self.contraction(), y
        for _ in range(iterations):
            x, before = y - same_shape(self.block(x.clone()), y), x
            if torch.equal(x, before):
                break
        return Inverse(x, self._distance(x, y, constant))

    def _distance(self, x: Tensor, y: Tensor, constant: float) -> Tensor:
        """Bound the distance of x to the inverse of y, by the residual and its rounding."""
        branch = self.block(x.clone())
        residual = lengths((x + branch - y).double())
        reach = float(lengths(x.double()).max()) if len(x) else 0.0
        arithmetic, shape = Arithmetic.of(y.dtype), tuple(x.shape[1:])
        start = Computed(shape, reach * ABOVE)
        end = followed(self.block, start, Run(arithmetic, start, shape, constant))
        size = lengths(x.double()) + lengths(branch.double()) + lengths(y.double())
        sums = arithmetic.rounding(2, size * ABOVE, start.count)
        # 1 - L is exact, or rounded by half a unit: ABOVE covers that and the quotient
        gap = math.nextafter(1 - constant, 0.0)
        return (residual + end.error + sums) / gap * ABOVE

    def log_determinant(self, x: Tensor) -> Tensor:
        """Return ``log det (I + g'(x))`` of each sample, up to rounding, from the whole Jacobian.

        It is differentiable, and positive determinants are sure: they lie between ``(1 - L)^n`` and
        ``(1 + L)^n`` for n numbers.

        Cost: a backward pass for each number of an input, and a Cholesky factor.

        Args:
            x: ``(batch, ...)``, up to 128 numbers each.

        Returns:
            ``(batch,)`` in the dtype of x.

        Raises:
            UnboundedModuleError: g is no contraction.
            NotApplicableError: larger inputs; ``log_determinant_estimate`` takes them.
        """
        self.contraction()
        count = math.prod(x.shape[1:])
        if count > _LARGEST:
            raise NotApplicableError(
                f"the Jacobian of {count} numbers is not written out: log_determinant_estimate"
            )
        with torch.enable_grad():
            start = x if x.requires_grad else x.detach().requires_grad_()
            moved = self.forward(start).flatten(1)
            rows = [
                torch.autograd.grad(moved[:, i].sum(), start, create_graph=True)[0].flatten(1)
                for i in range(count)
            ]
            jacobian = torch.stack(rows, 1)
            # |det| by a Cholesky factor of J^T J: batched LU is wrong with threads somewhere
            factor = torch.linalg.cholesky(jacobian.mT @ jacobian)
            logs: Tensor = factor.diagonal(dim1=1, dim2=2).log().sum(1)
            return logs

    def log_determinant_estimate(
        self,
        x: Tensor,
        *,
        probes: int = 16,
        terms: int = 32,
        generator: torch.Generator | None = None,
    ) -> LogDeterminantEstimate:
        """Estimate ``log det (I + g'(x))`` by Hutchinson's probes of a power series.

        Cost: a pass of g, and ``probes terms`` products with its transposed Jacobian.

        Args:
            x: ``(batch, ...)``.
            probes: random vectors of signs.
            terms: of the series of the logarithm.
            generator: of the probes.

        Raises:
            UnboundedModuleError: g is no contraction.
            UsageError: no probes or no terms.
        """
        if min(probes, terms) < 1:
            raise UsageError(f"probes and terms must be positive, got {probes} and {terms}")
        constant, count = self.contraction(), math.prod(x.shape[1:])
        with torch.enable_grad():
            start = x.detach().requires_grad_()
            moved = self.block(start.clone())
            found = []
            for _ in range(probes):
                signs = torch.rand(x.shape, generator=generator, device=x.device) < 0.5
                probe = 2.0 * signs.to(x.dtype) - 1
                vector, total = probe, x.new_zeros(len(x))
                for k in range(1, terms + 1):
                    (vector,) = torch.autograd.grad(moved, start, vector, retain_graph=True)
                    total = total - (-1) ** k * (vector * probe).flatten(1).sum(1) / k
                found.append(total.detach())
        stack = torch.stack(found)
        left = count * constant ** (terms + 1) / ((terms + 1) * (1 - constant)) * (1 + 1e-9)
        return LogDeterminantEstimate(stack.mean(0), stack.std(0) / math.sqrt(probes), left)

    def _refuse_training(self) -> None:
        if any(part.training for part in self.modules()):
            raise UsageError("training mode: call model.eval(), and onelip.export(model) before")
