r"""Truncated exponential of a skew-symmetric convolution, with an exact and a fast gradient.

With L skew-symmetric and k terms, Horner's rule gives :math:`z = \sum_{i<k} L^i x / i!` as

.. math:: u^{(k-1)} = x, \qquad u^{(i)} = x + L u^{(i+1)} / (i + 1), \qquad z = u^{(0)} .

The gradient g of z comes back to x by the same rule with -L, through :math:`v^{(i)}`. For L the
exact gradient needs one product of two images for each of the k - 1 convolutions. Singla and Feizi
replace them by a single one, :math:`v^{(1)} \otimes u^{(1)}` (their equation 5). Why that
is close: for the whole series the exact gradient is the mean over s in [0, 1] of
:math:`e^{-(1-s)L} g \otimes e^{sL} x`, and u, v are the means of its two factors. The mean of a
product differs from the product of the means by their covariance, which begins with
:math:`L g \otimes L x / 12`: second order in the norm of L.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from onelip.autocast import in_lower_precision, no_autocast
from onelip.custom_gradients import forward_mode, once
from onelip.layers.same_size import padded

_NO_SECOND = "the fast gradient of SOC has no second derivatives: exact_gradient=True"


def exact_series(
    x: Tensor, kernel: Tensor, terms: int, padding_mode: str, groups: int = 1
) -> Tensor:
    """Compute the truncated exponential, with its exact gradient by automatic differentiation.

    Args:
        x: an image.
        kernel: skew-symmetric.
        terms: k, counting the identity.
        padding_mode: ``"zeros"`` or ``"circular"``.
        groups: blocks of channels.

    Shape: ``(batch, c, h, w)`` to the same, for a kernel ``(c, c / groups, k, k)`` with k odd.
    Cost: ``terms - 1`` convolutions; backwards, as many and as many gradients of a kernel. All
    their inputs are kept.
    """
    return _horner(x, kernel, terms, padding_mode, groups)[0]


def fast_series(
    x: Tensor, kernel: Tensor, terms: int, padding_mode: str, groups: int = 1
) -> Tensor:
    """Truncated exponential with the exact gradient in x, and that in the kernel by equation 5.

    The kernel must be skew-symmetric (``skew``), for the backward pass takes -L for its adjoint.
    Under autocast all of the series runs in the lower precision. A gradient penalty, which
    differentiates the gradient in x, gets the kernel's share by equation 5 again; the gradient in
    the kernel is not differentiated twice, and derivatives in forward mode are exact.

    Shape: that of ``exact_series``.
    Cost: ``terms - 1`` convolutions; backwards, as many and one gradient of a kernel. One input of
    a convolution is kept.

    Reference: Singla, Feizi, "Improved techniques for deterministic l2 robustness", NeurIPS 2022,
    section 4.
    """
    device = x.device.type
    dtype = in_lower_precision(device)
    if dtype is not None:
        x, kernel = x.to(dtype), kernel.to(dtype)
    with no_autocast(device):
        if forward_mode():
            return exact_series(x, kernel, terms, padding_mode, groups)
        settings = terms, padding_mode, groups
        z: Tensor = _FastSeries.apply(x, kernel, *settings)[0]  # type: ignore[no-untyped-call]
    return z


class _FastSeries(torch.autograd.Function):
    """Series whose gradient in the kernel is that of equation 5."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, kernel: Tensor, terms: int, padding_mode: str, groups: int
    ) -> tuple[Tensor, Tensor]:
        """Return the series, and the input of its last convolution."""
        z, first = _horner(x, kernel, terms, padding_mode, groups)
        return z, first.clone() if first is x else first

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, int, str, int], output: tuple[Tensor, Tensor]
    ) -> None:
        """Save the input, the kernel and the input of the last convolution."""
        x, kernel, *ctx.settings = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(x, kernel, output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Apply the series of -L to the gradient; equation 5 gives that of the kernel."""
        x, kernel, first = ctx.saved_tensors
        g = gradients[0]
        _, padding_mode, groups = ctx.settings
        # the adjoint of the skew convolution is its negative: the same series with -L
        to_x, v = _FastSeries.apply(g, -kernel, *ctx.settings)  # type: ignore[no-untyped-call]
        to_kernel = None
        if ctx.needs_input_grad[1]:
            image, padding = padded(first, kernel.shape[-1] // 2, padding_mode)
            to_kernel = conv2d_weight(
                image.detach(), kernel.shape, v.detach(), padding=padding, groups=groups
            )
            to_kernel = once(to_kernel, _NO_SECOND, x, kernel, g)
        return to_x, to_kernel, None, None, None


def _horner(
    x: Tensor, kernel: Tensor, terms: int, padding_mode: str, groups: int
) -> tuple[Tensor, Tensor]:
    """Return the series and the input of its last convolution: u^(0) and u^(1)."""
    u = first = x
    for i in range(terms - 1, 0, -1):
        image, padding = padded(u, kernel.shape[-1] // 2, padding_mode)
        moved = F.conv2d(image, kernel, padding=padding, groups=groups)
        u, first = torch.add(x, moved, alpha=1 / i), u
    return u, first
