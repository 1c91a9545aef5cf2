r"""Differentiable maps from free matrices to orthonormal columns, in batches.

``cholesky_qr`` is the fast way: the Q of a QR factorisation, from the Gram matrix on the smaller
side. ``bjorck`` is the iteration of the papers, which approaches the polar factor. Both span the
same columns, so projectors ``Q Q^T`` are the same numbers either way.

The result is orthonormal up to rounding (``cholesky_qr``) or up to convergence (``bjorck``). Bounds
of layers do not rely on that: they are proved for the computed matrix.
"""

import abc
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Self, Unpack

import torch
from torch import Tensor, nn
from typing_extensions import override

from onelip.custom_gradients import forward_mode, once
from onelip.layers.constrained import ConstrainedLayer, orthogonal_
from onelip.layers.options import FactoryOptions
from onelip.lipschitz import overridable

Orthogonalise = Callable[[Tensor], Tensor]
"""Function from a batch of tall matrices to matrices with (nearly) orthonormal columns."""

_NO_SECOND = (
    "a weight by cholesky_qr has no second derivatives: orthogonalise=bjorck, or a BjorckLinear"
)
_PROBES = (0.7, 1.3, 1.9, 2.6)
_ROUGH = 4  # units of rounding per root of the columns, beyond which a second pass is made
_SHIFT = 4  # units of rounding of its norm, added to the diagonal of a Gram matrix


def cholesky_qr(matrices: Tensor) -> Tensor:
    r"""Return the Q factor of tall matrices: ``V L^{-T}`` with ``L L^T = V^T V``.

    In exact arithmetic it has orthonormal columns. In floating point one pass is off by about
    ``condition^2`` units of rounding; the pass is repeated where that is much. Linearly dependent
    columns come out shorter than 1, never longer.

    Shape: ``(batch, rows, columns)``, rows >= columns, to the same.
    Cost: ``3/2 rows columns^2`` multiplications and a factorisation of ``columns^3 / 6``; the
    gradient takes ``5/2 rows columns^2`` more.

    Example:
        >>> q = cholesky_qr(torch.tensor([[[3.0, 1.0], [4.0, 0.0]]]))
        >>> (q.mT @ q).allclose(torch.eye(2), atol=1e-6)
        True
    """
    if not matrices.numel():
        return matrices
    if matrices.dtype in (torch.float16, torch.bfloat16):  # which have no factorisations
        return cholesky_qr(matrices.float()).to(matrices.dtype)
    if forward_mode():
        return _factors(matrices)[0]
    q: Tensor = _CholeskyQR.apply(matrices)[0]  # type: ignore[no-untyped-call]
    return q


def _factors(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Q, R and the length of V that R was divided by."""
    peak = matrices.abs().amax((-2, -1), keepdim=True)
    peak = torch.where(peak > 0, peak, 1)  # first, for squares may overflow
    length = torch.linalg.vector_norm(matrices / peak, dim=(-2, -1), keepdim=True).clamp_min(1)
    q, upper = _orthogonalise_once(matrices / peak / length)
    if _needs_another_pass(q):
        q, correction = _orthogonalise_once(q)
        upper = correction @ upper
    return q, upper, peak * length


def _orthogonalise_once(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return Q and R from the Gram matrix, its diagonal raised by a few units of rounding."""
    gram = matrices.mT @ matrices
    unit = torch.finfo(gram.dtype).eps
    norm = gram.abs().sum(-1).amax(-1, keepdim=True).clamp_min(unit)  # zeros stay zeros
    # raised: the factorisation exists for dependent columns, and makes Q shorter, not longer;
    # by less where the matrix is nearly a multiple of the identity, for it exists there anyway
    missing = norm - gram.diagonal(dim1=-2, dim2=-1)
    gram = gram + torch.diag_embed(_SHIFT * unit * torch.minimum(norm, 4 * missing))
    upper = torch.linalg.cholesky_ex(gram, upper=True).L
    return torch.linalg.solve_triangular(upper, matrices, upper=True, left=False), upper


def _needs_another_pass(q: Tensor) -> bool:
    """Return whether Q is not orthonormal enough, or whether that cannot be tested.

    On other devices the test would force a synchronisation, and neither a compiler nor ``vmap``
    takes a branch: there a second pass is always made.
    """
    if q.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    try:
        return _is_rough(q)
    except RuntimeError:  # from vmap
        return True


def _is_rough(q: Tensor) -> bool:
    """Estimate from a few fixed probes whether ``|Q^T Q - I|_F`` is large."""
    count = q.shape[-1]
    # for signs z, the mean of |E z|^2 estimates |E|_F^2 (Hutchinson)
    waves = torch.outer(torch.arange(1.0, count + 1), torch.tensor(_PROBES)).sin().sign()
    probes = waves.to(q).expand(len(q), -1, -1)
    error = torch.linalg.vector_norm(q.mT @ (q @ probes) - probes) / len(_PROBES) ** 0.5
    return bool(error > _ROUGH * count**0.5 * torch.finfo(q.dtype).eps)


class _CholeskyQR(torch.autograd.Function):
    """QR factorisation with a gradient in closed form, half as costly as autograd's.

    From ``dV = dQ R + Q dR`` and ``Q^T dQ`` skew: the gradient g of Q becomes
    ``(g + Q (lower(M - M^T) - M)) R^{-T}`` with ``M = Q^T g``, lower the strictly lower part.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q, R and a length, of which only Q has a gradient."""
        return _factors(matrices)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, ...]) -> None:
        """Save the factors."""
        q, upper, length = output
        ctx.mark_non_differentiable(upper, length)
        ctx.save_for_backward(*inputs, q, upper, length)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The operation that the class docstring defines."""
        matrices, q, upper, length = ctx.saved_tensors
        gradient = gradients[0]
        product = q.mT @ gradient
        inner = (product - product.mT).tril(-1) - product
        outer = torch.baddbmm(gradient, q, inner) / length
        result: Tensor = torch.linalg.solve_triangular(upper.mT, outer, upper=False, left=False)
        return once(result, _NO_SECOND, matrices, gradient)


def bjorck(
    matrices: Tensor, *, iterations: int = 20, order: int = 1, power_iterations: int = 10
) -> Tensor:
    r"""Iterate towards the polar factor by Bjorck and Bowie's method (BCOP's appendix).

    Order 1 is ``V <- V (3/2 - 1/2 V^T V)``; order p adds the next terms of the binomial series of
    ``(V^T V)^{-1/2}``. It converges from matrices of norm below ``sqrt(3)``; they are divided by an
    estimate of their norm first. The estimate is not differentiated: the polar factor does not
    depend on it, a matrix after few iterations does.

    Shape: ``(batch, rows, columns)``, rows >= columns, to the same.
    Cost: ``2 order`` products of ``rows columns^2`` multiplications an iteration.

    Args:
        matrices: of full column rank; small singular values converge slowly.
        iterations: number of iterations.
        order: terms of the series.
        power_iterations: power iterations for the estimate of the norm.

    Example:
        >>> q = bjorck(torch.tensor([[[3.0, 1.0], [4.0, 0.0]]]))
        >>> (q.mT @ q).allclose(torch.eye(2), atol=1e-5)
        True

    Reference: Bjorck, Bowie, "An iterative algorithm for computing the best estimate of an
    orthogonal matrix", 1971.
    """
    if not matrices.numel():
        return matrices
    # an estimate from below suffices: the iteration converges from norms below sqrt(3)
    result = matrices / _norm_estimate(matrices, power_iterations)
    eye = torch.eye(result.shape[-1], dtype=result.dtype, device=result.device)
    for _ in range(iterations):
        residual = eye - result.mT @ result
        series, term, coefficient = eye + residual / 2, residual, 0.5
        for power in range(2, order + 1):
            term = term @ residual
            coefficient *= (2 * power - 1) / (2 * power)
            series = series + coefficient * term
        result = result @ series
    return result


@torch.no_grad()
def _norm_estimate(matrices: Tensor, iterations: int) -> Tensor:
    """Estimate of the norm from below: power iteration, and no less than the longest column."""
    peak = matrices.abs().amax((-2, -1), keepdim=True)
    scaled = matrices / torch.where(peak > 0, peak, 1)  # squares may overflow
    columns = torch.arange(1.0, scaled.shape[-1] + 1, dtype=scaled.dtype, device=scaled.device)
    vector = columns.sin()[:, None].expand(*scaled.shape[:-2], -1, 1)
    tiny = torch.finfo(scaled.dtype).tiny
    for _ in range(iterations):
        length = torch.linalg.vector_norm(vector, dim=(-2, -1), keepdim=True)
        vector = scaled.mT @ (scaled @ (vector / length.clamp_min(tiny)))
    norm = torch.linalg.vector_norm(vector, dim=(-2, -1), keepdim=True).sqrt()
    longest = torch.linalg.vector_norm(scaled, dim=-2, keepdim=True).amax(-1, keepdim=True)
    estimate = torch.maximum(norm, longest)
    found: Tensor = torch.where(peak > 0, estimate * peak, 1)
    return found


class OrthogonalLayer(ConstrainedLayer):
    """A layer whose weight is assembled from orthogonalised matrices.

    Inside ``computed_once`` the matrices of all such layers are orthogonalised in one batch per
    shape.
    """

    orthogonalise: Orthogonalise

    @abc.abstractmethod
    def free_matrices(self) -> list[Tensor]:
        """Return stacks ``(count, rows, columns)`` of tall free matrices."""

    @abc.abstractmethod
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        """Assemble the weight from the same stacks, orthogonalised."""

    @override
    def compute_weight(self) -> Tensor:
        return self.assemble([self.orthogonalise(stack) for stack in self.free_matrices()])

    @override
    @overridable
    def batch_key(self) -> object:
        some = next(self.parameters())
        return OrthogonalLayer, some.dtype, some.device

    @override
    @classmethod
    @overridable
    def compute_weights(cls, layers: Sequence[Self]) -> list[Tensor]:
        stacks = [layer.free_matrices() for layer in layers]
        places: dict[Any, list[tuple[int, int]]] = defaultdict(list)
        for i, layer in enumerate(layers):
            for j, stack in enumerate(stacks[i]):
                places[layer.orthogonalise, stack.shape[1:]].append((i, j))
        for (orthogonalise, _), found in places.items():
            batch = torch.cat([stacks[i][j] for i, j in found])
            parts = orthogonalise(batch).split([len(stacks[i][j]) for i, j in found])
            for (i, j), part in zip(found, parts, strict=True):
                stacks[i][j] = part
        return [layer.assemble(stack) for layer, stack in zip(layers, stacks, strict=True)]


def tall(
    rows: int, columns: int, count: int = 1, **factory: Unpack[FactoryOptions]
) -> nn.Parameter:
    """Return a parameter of ``count`` tall matrices, orthogonal to begin with.

    Each has as many columns as the smaller of ``rows`` and ``columns``.
    """
    stack = torch.empty(count, max(rows, columns), min(rows, columns), **factory)
    for matrix in stack:
        orthogonal_(matrix)
    return nn.Parameter(stack, requires_grad=count > 0)


def oriented(matrix: Tensor, rows: int, columns: int) -> Tensor:
    """Transpose a tall matrix if needed, so that it has this many rows and columns."""
    return matrix if rows >= columns else matrix.mT
