r"""Rounding of sums of products: linear modules, and helpers of other rules.

For :math:`W x + b` the sums of absolute terms are at most :math:`\||W|\| |x| + |b|`, with the norm
of the matrix of absolute values; within d of a known vector p they are at most
:math:`|W| |p| + |b|`, entry by entry, and another :math:`\||W|\| d` in norm. This holds for every
order of summation, fused or not. It does not hold for Winograd's and Fourier's convolutions, which
are refused where torch may choose them.
"""

import math
import platform
from typing import Any

import torch
from torch import Tensor, nn

from onelip.errors import UnboundedModuleError
from onelip.forward_error.arithmetic import ABOVE, Local, Run, Shape
from onelip.forward_error.sums import Sums, additions, lengths, with_weight
from onelip.norms.rounding import exact, frobenius, power_of_two, upward
from onelip.norms.spectral import ends_above

_ROUNDS = 3  # towards the norm of absolute values


@torch.inference_mode(False)
def absolute_norm(module: nn.Module, shape: Shape) -> float:
    r"""Upper bound of the norm of a linear module with the absolute values of its weight.

    For a matrix A without negative entries and every vector q > 0, :math:`|A|^2` is at most the
    largest quotient of :math:`A^T A q` and q (Collatz, Wielandt). The bound is as good as q is
    close to the first singular vector; ones, the first q, give at most :math:`|A|_1 |A|_\infty`.

    Cost: some passes of one sample in float64, and as many backwards.
    """
    weight = exact(module.weight).abs().cpu()  # type: ignore[arg-type]
    if not weight.any():
        return 0.0
    scale = power_of_two(weight)
    twin = with_weight(module, weight * scale)
    q, square = torch.ones(1, *shape, dtype=torch.float64), torch.tensor(math.inf).double()
    for _ in range(_ROUNDS):
        image = _gram(twin, q)
        square = torch.minimum(square, (image / q).max())
        if not image.any():
            break  # of a kernel that meets nothing but padding
        q = image + 1e-3 * image.max()
    terms = 32 * weight.numel()  # a pixel that circular padding repeats counts up to nine times
    if getattr(module, "padding_mode", "zeros") == "replicate":  # and a lonely one everywhere
        terms *= math.prod(1 + pixels for pixels in module._reversed_padding_repeated_twice)  # type: ignore[union-attr]
    norm = ends_above(upward(upward(square, terms).sqrt(), 4) / scale)
    return float(torch.minimum(norm, frobenius(weight)) if weight.ndim == 2 else norm)


@torch.enable_grad()
def _gram(module: nn.Module, q: Tensor) -> Tensor:
    """A linear map and its adjoint, applied to a vector."""
    q = q.detach().requires_grad_()
    image = module(q)
    (result,) = torch.autograd.grad(image, q, image.detach())
    return result


def affine(module: Any, run: Run) -> Local:
    """Bound the rounding of ``W x + b``; around a sample, from the sums at its own vector."""
    offset = 0.0 if module.bias is None else repeated(exact(module.bias).cpu(), run)
    norm = absolute_norm(module, run.x.shape)
    counts = additions(module, run.x.shape)
    most = int(counts.max())
    middle = (norm + min(norm, run.lipschitz)) / 2 * ABOVE  # of the larger half of the terms
    magnitudes = norm * run.x.reach + offset, middle * run.x.reach + offset
    everywhere = run.arithmetic.summation(most, *magnitudes, run.count)
    if run.x.near is None:
        return Local(offset, everywhere)
    sums = Sums.of(module, run.x.near.point)
    share = run.arithmetic.gamma(most + 1) / (most + 1)
    here = lengths(sums.terms + counts.flatten() * sums.peak)
    moved = (norm + most * middle) * run.x.near.away
    lost = run.arithmetic.summation(most, 0.0, 0.0, run.count)  # to underflow
    return Local(
        offset, torch.fmin(torch.as_tensor(everywhere), (share * (here + moved) + lost) * ABOVE)
    )


def repeated(numbers: Tensor, run: Run) -> float:
    """Length of an output that has one of these numbers per channel, everywhere."""
    copies = run.count // len(numbers)
    return float(frobenius(numbers[None])) * math.sqrt(copies) * ABOVE


def refuse_fast_convolutions(weight: Tensor) -> None:
    """Sums of products of transformed images are not what the rules count.

    Raises:
        UnboundedModuleError: torch may choose Winograd's or Fourier's convolution: on every device
            but the CPU, and there in float32 on other processors than x86, and where oneDNN is
            switched off and NNPACK takes over.
    """
    if weight.device.type != "cpu":
        raise UnboundedModuleError(
            f"on {weight.device.type} a convolution may be Winograd's or Fourier's, with another "
            "rounding: certify on the CPU, or use level='real'"
        )
    if weight.dtype == torch.float32 and platform.machine() not in ("x86_64", "AMD64"):
        raise UnboundedModuleError(
            f"on {platform.machine()} a convolution in float32 may be Winograd's, with another "
            "rounding: model.double(), or level='real'"
        )
    direct = torch.backends.mkldnn.is_available() and bool(torch.backends.mkldnn.enabled)
    if weight.dtype == torch.float32 and not direct and torch.backends.nnpack.is_available():
        raise UnboundedModuleError(
            "without oneDNN a convolution in float32 may be NNPACK's, with another rounding: set "
            "torch.backends.mkldnn.enabled = True, or use level='real'"
        )


def moved(module: nn.Module, run: Run) -> Local:  # noqa: ARG001
    """The error of what computes nothing and leaves 0 at 0: none."""
    return Local(0.0, 0.0)


def scaled(module: nn.Module, run: Run) -> Local:  # noqa: ARG001
    """The error of one product by a factor that may itself be a rounded number."""
    return Local(0.0, run.rounding(2, run.lipschitz * run.x.reach))
