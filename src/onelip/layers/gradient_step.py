"""A gradient step of plain torch modules, to which Convex Potential and SLL layers export."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from onelip import norms
from onelip.activations import Interval, slopes
from onelip.chains import LinearMap, norm_of_parts
from onelip.chains.linear_layers import convolution, dense, scaled
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import ABOVE, Arithmetic, Computed, Local, Reference, Run
from onelip.layers.fixed_conv import check_image, check_image_size
from onelip.lipschitz import LipschitzModule, bound_of_part, through
from onelip.lipschitz.torch_modules import elementwise, sides_of
from onelip.norms.convolutions import is_circular
from onelip.norms.rounding import downward, exact, frobenius, product, upward


def gradient_step_bound(step: Tensor, norm: Tensor, slope: Interval) -> Tensor:
    r"""Bound of :math:`x - h W^T \sigma(W x + b)` for a step h and slopes in an interval.

    The difference of two outputs is that of the inputs times I - h W^T D W, D diagonal in the
    interval: a symmetric matrix, whose eigenvalues for h >= 0 lie between ``1 - h high norm^2`` and
    ``1 - h min(low, 0) norm^2``. A negative step changes the sign of the slopes.
    """
    # eigenvalues lie in [1 - reach high, 1 - reach low]; the norm is the larger absolute value
    low, high = slope if step >= 0 else (-slope[1], -slope[0])
    reach = upward(step.detach().double().cpu().abs() * norm.square(), 2)
    above = upward(1 + upward(reach * max(-low, 0.0), 2), 1) if low < 0 else torch.ones_like(reach)
    below = upward(reach * max(high, 0.0), 1) - 1
    # max(1, .) is exactly 1 unless ``below`` exceeds 1: only then is there a number to round up
    one = torch.ones_like(reach)
    return torch.stack([one, upward(below, 2) if below > 1 else one, above]).max()


def longest_step(norm: Tensor, slope: Interval, like: Tensor) -> Tensor:
    """Largest step in the dtype of ``like`` that is proved to keep a gradient step 1-Lipschitz.

    A margin is left for a second proof, whose norm may be larger than the first by 1e-8.
    """
    smoothness = upward(norm.square() * (slope[1] * (1 + 1e-8)), 8)
    longest = downward(2 / smoothness, 8).to(like.dtype)  # may round up by one unit
    return torch.nextafter(longest, torch.zeros_like(longest)).to(like)


class GradientStep(LipschitzModule):
    """``x - outer(step * activation(inner(x)))`` with ``outer`` the adjoint of ``inner``.

    Both are plain ``nn.Linear`` or ``nn.Conv2d``, stride 1, padded to keep the image's size.

    Bound: ``max(1, step s |inner|^2 - 1)``, s the largest slope of the activation.
    Shape: ``(batch, ...)`` to the same.
    Cost: one call of each of its parts.

    Args:
        weight: ``(hidden, features)``, or ``(hidden, channels, k, k)`` with k odd.
        bias: ``(hidden,)``.
        activation: an elementwise activation of torch.
        step: 0-d, the step h >= 0; None for 1.
        image_size: height and width of the input of a convolution, None for any.
        padding_mode: padding of a convolution.

    Raises:
        ValueError: a negative step; in ``forward``, an image of another size than ``image_size``.
    """

    same_in_float64 = True

    step: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        activation: nn.Module,
        step: Tensor | None,
        *,
        image_size: tuple[int, int] | None = None,
        padding_mode: str = "zeros",
    ) -> None:
        super().__init__()
        if step is not None and step < 0:
            raise ValueError(f"step must not be negative, got {float(step)}")
        self.inner = _plain(weight, bias, padding_mode)
        self.activation = activation
        self.outer = _plain(mirrored(weight), None, padding_mode)
        self.image_size, self.padding_mode = image_size, padding_mode
        self.register_buffer("step", step)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x - outer(step * activation(inner(x)))``."""
        check_image_size(x, self.image_size)
        hidden = self.activation(self.inner(x))
        step: Tensor = self.outer(hidden if self.step is None else self.step * hidden)
        return x - step

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring.

        Raises:
            UnboundedModuleError: a weight was changed, and ``outer`` is no longer the adjoint.
        """
        norm = norm_bound(self.inner.weight, self.image_size, self.padding_mode)
        if not self._is_adjoint():
            raise UnboundedModuleError("GradientStep.outer is no longer the adjoint of .inner")
        step = torch.ones(()) if self.step is None else self.step
        return gradient_step_bound(step, norm, slopes(self.activation))

    def _is_adjoint(self) -> bool:
        """Return whether the weights match, elementwise, and no setting was changed."""
        fresh = _plain(mirrored(self.inner.weight), None, self.padding_mode)
        settings = ["padding", "padding_mode", "stride", "dilation", "groups"]
        settings.append("_reversed_padding_repeated_twice")  # the pixels that torch wraps
        return (
            torch.equal(self.outer.weight, fresh.weight)
            and all(
                type(part) is type(fresh)
                and all(
                    getattr(part, name, None) == getattr(fresh, name, None) for name in settings
                )
                for part in (self.inner, self.outer)
            )
            and self.outer.bias is None
        )

    def to_chain(self, value: Value) -> Value:
        """Read the layer as a block with the constant that it proves."""
        step = self.inner.weight.new_ones(()) if self.step is None else self.step
        return gradient_step_chain(self, value, self.inner.weight, self.inner.bias, step)

    def forward_error(self, run: Run) -> Local:
        """Rounding of its parts, added up."""
        arithmetic = run.arithmetic
        norm = norm_bound(self.inner.weight, self.image_size, self.padding_mode)
        hidden = through(self.inner, run.x, arithmetic, lipschitz=norm)
        hidden = through(self.activation, hidden, arithmetic)
        if self.step is not None:
            hidden = times(hidden, float(exact(self.step)), arithmetic)
        step = through(self.outer, hidden, arithmetic, lipschitz=norm)
        return Local(step.offset, step.error + run.rounding(1, run.x.reach + step.reach))


def norm_bound(weight: Tensor, image_size: tuple[int, int] | None, padding_mode: str) -> Tensor:
    """Proved norm of a matrix, or of a convolution that keeps the image's size."""
    if weight.ndim == 2:
        return norms.dense(weight)
    return norms.convolution(
        weight,
        image_size=image_size,
        padding=weight.shape[-1] // 2,
        padding_mode=padding_mode,
    )


def norm_bound_once_rounded(
    weight: Tensor, image_size: tuple[int, int] | None, padding_mode: str, dtype: torch.dtype
) -> Tensor:
    """Proved bound of the norm of ``inner``, also after a positive factor and rounding to a dtype.

    The bound is that of the weight itself; the factor is the caller's. Rounding moves each entry
    by half an eps, and the norm of a convolution by at most the root of its taps times the
    Frobenius norm of that.
    """
    taps = math.sqrt(weight[0, 0].numel())
    lengths = frobenius(exact(weight).flatten(1)).cpu() * taps
    norm = norm_bound(weight, image_size, padding_mode)
    return upward(norm + torch.finfo(dtype).eps * lengths, 2)


def mirrored(weight: Tensor) -> Tensor:
    """Return the weight of the adjoint map: transposed, and flipped for a kernel."""
    return weight.t() if weight.ndim == 2 else weight.flip(2, 3).transpose(0, 1)


def _plain(weight: Tensor, bias: Tensor | None, padding_mode: str) -> nn.Linear | nn.Conv2d:
    """Return a torch module with copies of a weight and a bias, without drawing numbers."""
    outputs, inputs, *kernel = weight.shape
    part: nn.Linear | nn.Conv2d
    if kernel:
        shape: dict[str, Any] = {"padding": kernel[0] // 2, "padding_mode": padding_mode}
        part = nn.Conv2d(inputs, outputs, kernel[0], device="meta", **shape)
    else:
        part = nn.Linear(inputs, outputs, device="meta")
    part.weight = nn.Parameter(weight.detach().clone(memory_format=torch.contiguous_format))
    part.bias = None if bias is None else nn.Parameter(bias.detach().clone())
    return part


def times(x: Computed, factor: float, arithmetic: Arithmetic) -> Computed:
    """Multiply by a stored factor, and add its rounding."""
    signed, factor = factor, abs(factor)
    lost = arithmetic.rounding(1, factor * x.reach, x.count)
    near = x.near
    if near is not None:
        double = Arithmetic.of(torch.float64)
        off = factor * near.off + double.rounding(1, factor * near.lengths, x.count)
        near = Reference(near.point * signed, off * ABOVE, factor * near.drift * ABOVE)
    size, error = factor * x.size * ABOVE, (factor * x.error + lost) * ABOVE
    return Computed(x.shape, size, error, factor * x.offset * ABOVE, near)


def gradient_step_chain(
    layer: Any, value: Value, weight: Tensor, bias: Tensor | None, step: Tensor
) -> Value:
    """Append ``x - step W^T activation(W x + b)`` to a value, for a layer with these numbers.

    The block carries the constant that the layer proves. A bound of the skip path plus the branch
    would be larger.
    """
    check_image(value, layer.image_size, (1, 1), layer.padding_mode)
    hidden = _same_size(value, weight, bias, layer.padding_mode)
    back = scaled(Value.entering(hidden.shape, weight), -step)
    adjoint = _same_size(back, mirrored(weight), None, layer.padding_mode)
    return block_of(layer, value, hidden, adjoint.linear, value.linear)


def block_of(
    layer: Any, value: Value, hidden: Value, outer: LinearMap, skip: LinearMap | None
) -> Value:
    """A block with the constant that its layer proves, times that of the map before it."""
    constant = product([bound_of_part(layer), norm_of_parts(value.linear)])
    plain = elementwise(layer.activation, hidden).point.block
    assert plain is not None
    return value.behind(replace(plain, outer=outer, skip=skip, constant=float(constant)))


def _same_size(value: Value, weight: Tensor, bias: Tensor | None, padding_mode: str) -> Value:
    """Append ``W x + b`` to a value, W a matrix or a convolution that keeps the image's size."""
    if weight.ndim == 2:
        return dense(value, weight, bias)
    sides = sides_of(weight, weight.shape[-1] // 2, (1, 1))
    return convolution(value, weight, bias, sides=sides, circular=is_circular(padding_mode))
