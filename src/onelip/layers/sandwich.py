r"""Sandwich layers (Wang, Manchester, ICML 2023).

The layer is :math:`\sqrt 2 A^T \Psi \sigma(\sqrt 2 \Psi^{-1} B x + b)` with a diagonal
:math:`\Psi > 0` and :math:`A A^T + B B^T = I`, where :math:`[A, B]^T` is a Cayley transform.

**Bound.** Take any maps :math:`V \sigma(U x + b)` and any :math:`\Psi > 0`, and let
:math:`B = \Psi U / \sqrt 2`, :math:`A^T = V \Psi^{-1} / \sqrt 2`. A change :math:`\delta` of x
changes :math:`\sigma` by some z with :math:`0 \le z_i^2 \le z_i (U \delta)_i` if its slopes lie in
[0, 1]. For :math:`y = \Psi z` the sum over i says :math:`|y|^2 \le \sqrt 2\, y^T B \delta`. The
output changes by :math:`\sqrt 2 A^T y`. If :math:`A A^T + B B^T \preceq I`, then

.. math:: 2 |A^T y|^2 \le 2 |y|^2 - 2 |B^T y|^2 \le 2 \sqrt 2\, y^T B \delta - 2 |B^T y|^2
          \le |\delta|^2 .

Otherwise let :math:`\lambda = \|[A, B]\|^2`. Both divided by :math:`\sqrt \lambda` satisfy the
condition, and the layer is that one with its input and its output multiplied by
:math:`\sqrt \lambda`. Hence **its constant is at most** :math:`\|[A, B]\|^2`, whatever U, V and
:math:`\Psi` are, and s times that for slopes in [0, s]. That norm is proved numerically.
"""

import copy
import math
from collections.abc import Sequence
from typing import Self, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

from onelip import norms
from onelip.activations import Interval, slopes
from onelip.chains.linear_layers import dense
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import Local, Run
from onelip.layers.cayley import cayley
from onelip.layers.constrained import ComputedOnce, full_precision, plain_linear
from onelip.layers.fourier_layer import at_least_single
from onelip.layers.gradient_step import block_of
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import LipschitzModule, through
from onelip.norms.rounding import UNDERFLOW, UNIT, exact, frobenius, upward

Maps = tuple[Tensor, Tensor, Tensor]  # U, V and psi


def sandwich_bound(inner: Tensor, outer: Tensor, psi: Tensor, slope: Interval) -> Tensor:
    r"""Bound of ``V sigma(U x + b)``: half of ``s |[psi U, (V / psi)^T]|^2``, for slopes in [0, s].

    Raises:
        UnboundedModuleError: the activation decreases, or psi is not positive.
        NonFiniteError: a weight, or a quotient, is infinite or NaN.

    Example:
        >>> one = torch.ones(1, 1)
        >>> sandwich_bound(one, 2 * one, torch.tensor([2.0]) ** 0.5, (0, 1))
        tensor(2.0000, dtype=torch.float64)
    """
    low, high = slope
    if low < 0:
        raise UnboundedModuleError(f"slopes from {low} on: the activation of a sandwich decreases")
    if not (psi > 0).all():
        raise UnboundedModuleError("psi of a sandwich layer must be positive")
    psi = exact(psi)
    both = exact(torch.cat([psi[:, None] * exact(inner), (exact(outer) / psi).mT], 1))
    # each entry is one product or quotient: rounded once, or lost to underflow
    error = upward(UNIT * frobenius(both), 4) + math.sqrt(both.numel()) * UNDERFLOW
    return upward(norms.dense(both, error=error).square() / 2 * high, 4)


class Sandwich(LipschitzModule):
    """``outer(activation(inner(x)))`` with the multipliers psi of its proof: an exported sandwich.

    Bound: half of ``s |[psi U, (V / psi)^T]|^2``, U and V the weights of ``inner`` and ``outer``
    and s the largest slope of the activation.
    Shape: ``(*, in_features)`` to ``(*, out_features)``.
    Cost: one call of each of its parts.

    Args:
        inner: U, ``(hidden, in_features)``.
        bias: ``(hidden,)``, or None.
        activation: an elementwise activation of torch that does not decrease.
        outer: V, ``(out_features, hidden)``.
        psi: ``(hidden,)``, positive; used by the bound only.
    """

    same_in_float64 = True

    psi: Tensor

    def __init__(
        self,
        inner: Tensor,
        bias: Tensor | None,
        activation: nn.Module,
        outer: Tensor,
        psi: Tensor,
    ) -> None:
        super().__init__()
        self.inner = plain_linear(inner.detach().clone(), bias)
        self.activation = activation
        self.outer = plain_linear(outer.detach().clone(), None)
        self.register_buffer("psi", psi.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return ``outer(activation(inner(x)))``."""
        y: Tensor = self.outer(self.activation(self.inner(x)))
        return y

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring.

        Raises:
            UnboundedModuleError: a part is no plain ``nn.Linear`` any more.
        """
        for part in (self.inner, self.outer):
            if type(part) is not nn.Linear:
                raise UnboundedModuleError(f"Sandwich holds a {type(part).__name__}, no nn.Linear")
        weights = self.inner.weight, self.outer.weight
        return sandwich_bound(*weights, self.psi, slopes(self.activation))

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a block with the constant that it proves."""
        hidden = dense(value, self.inner.weight, self.inner.bias)
        outer = dense(Value.entering(hidden.shape, value.point.like), self.outer.weight, None)
        return block_of(self, value, hidden, outer.linear, None)

    def forward_error(self, run: Run) -> Local:
        """Rounding of its parts, added up."""
        x = run.x
        for part in (self.inner, self.activation, self.outer):
            x = through(part, x, run.arithmetic)
        return Local(x.offset, x.error)


class SandwichLinear(ComputedOnce):
    r"""Sandwich layer, ``sqrt2 A^T psi activation(sqrt2 psi^{-1} B x + b)``.

    Bound: ``s |[A, B]|^2`` for A and B as they come out of the Cayley transform, s the largest
    slope of the activation; 1 up to rounding for ReLU.
    Shape: ``(*, in_features)`` to ``(*, out_features)``.
    Cost: a product with ``out_features x in_features`` and one with ``out_features^2`` numbers; a
    step, ``2 in_features out_features^2`` multiplications and an inverse of size ``out_features``.

    Args:
        in_features: size of the input.
        out_features: size of the output, and of the hidden layer.
        bias: whether to add b.
        activation: with slopes in [0, 1]; ``nn.ReLU()`` by default.
        **factory: ``device`` and ``dtype`` of the parameters.

    Raises:
        ValueError: features that are not positive, an activation with other slopes.
        UnboundedModuleError: the slopes of the activation are not known.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(SandwichLinear(8, 4)) - 1) < 1e-5)
        True

    Reference: Wang, Manchester, "Direct parameterization of Lipschitz-bounded deep networks", 2023.
    """

    _held: Maps | None = None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        activation: nn.Module | None = None,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__()
        if min(in_features, out_features) < 1:
            raise ValueError(f"features must be positive, got {in_features} and {out_features}")
        self.activation = nn.ReLU() if activation is None else activation
        low, high = slopes(self.activation)
        if low < 0 or high > 1:
            raise ValueError(
                f"{self.activation} has slopes from {low} to {high}: a sandwich needs them in "
                "[0, 1], as those of ReLU, Tanh or Softplus"
            )
        self.in_features, self.out_features = in_features, out_features
        both = torch.empty(out_features + in_features, out_features, **factory)
        self.raw_weight = nn.Parameter(both)
        self.log_psi = nn.Parameter(torch.empty(out_features, **factory))
        self.bias = nn.Parameter(torch.empty(out_features, **factory)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the free matrix with Xavier's variance, and set psi to 1."""
        nn.init.xavier_normal_(self.raw_weight)
        nn.init.zeros_(self.log_psi)
        if self.bias is not None:
            limit = 1 / math.sqrt(self.in_features)
            nn.init.uniform_(self.bias, -limit, limit)

    def maps(self) -> Maps:
        """Return ``U = sqrt2 B / psi``, ``V = sqrt2 A^T psi`` and psi in use."""
        return self.compute_maps() if self._held is None else self._held

    def compute_maps(self) -> Maps:
        """Maps computed from the parameters, never in half precision."""
        with full_precision(self.raw_weight):
            both = math.sqrt(2) * cayley(at_least_single(self.raw_weight))
            psi = at_least_single(self.log_psi).exp()
            outer, inner = both[: self.out_features], both[self.out_features :].mT
            maps = inner / psi[:, None], outer * psi, psi
            inner, outer, psi = (part.to(self.raw_weight.dtype) for part in maps)
            return inner, outer, psi

    @override
    def batch_key(self) -> object:
        return id(self)

    @override
    @classmethod
    def begin(cls, layers: Sequence[Self]) -> None:
        for layer in layers:
            layer._held = layer.compute_maps()

    @override
    def end(self) -> None:
        self._held = None

    def forward(self, x: Tensor) -> Tensor:
        """Return ``V activation(U x + b)``."""
        inner, outer, _ = self.maps()
        return F.linear(self.activation(F.linear(x, inner, self.bias)), outer)

    def lipschitz_bound(self) -> Tensor:
        """Proved bound ``s |[A, B]|^2`` for the A and B in use."""
        return sandwich_bound(*self.maps(), slopes(self.activation))

    @torch.no_grad()
    def export(self) -> Sandwich:
        """Return U and V as plain linear layers, computed in float64 and rounded once."""
        dtype, twin = self.raw_weight.dtype, copy.deepcopy(self).double()
        inner, outer, psi = (part.to(dtype) for part in twin.compute_maps())
        return Sandwich(inner, self.bias, copy.deepcopy(self.activation), outer, psi)

    def extra_repr(self) -> str:
        """Arguments, printed as torch prints those of linear layers."""
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}"

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a block with the weights in use and the constant that it proves."""
        weight, outer, _ = self.maps()
        hidden = dense(value, weight, self.bias)
        after = dense(Value.entering(hidden.shape, value.point.like), outer, None)
        return block_of(self, value, hidden, after.linear, None)
