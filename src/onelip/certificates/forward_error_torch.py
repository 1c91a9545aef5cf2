r"""What rounding does inside torch's modules.

For :math:`W x + b` the sums of absolute terms are at most :math:`\||W|\| |x| + |b|`, with the norm
of the matrix of absolute values. This holds for every order of summation, fused or not. It does not
hold for Winograd's and Fourier's convolutions, which are refused where torch may choose them.
"""

import copy
import math
import platform
from typing import Any

import torch
from torch import Tensor, nn

from onelip.certificates.forward_error_rules import ABOVE, Local, Run, rule
from onelip.chains import Shape
from onelip.errors import UnboundedModuleError
from onelip.lipschitz import MOVES
from onelip.norms.rounding import downward, exact, frobenius, power_of_two, upward
from onelip.norms.spectral import ends_above

_ROUNDS = 3  # towards the norm of absolute values
_LIBRARY = 8  # units round-off: 4 units in the last place, of exp, tanh and the like


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
    twin = copy.deepcopy(module).cpu()
    twin.weight, twin.bias = nn.Parameter(weight * scale, requires_grad=False), None  # type: ignore[assignment]
    q, square = torch.ones(1, *shape, dtype=torch.float64), torch.tensor(math.inf).double()
    for _ in range(_ROUNDS):
        image = _gram(twin, q)
        square = torch.minimum(square, (image / q).max())
        if not image.any():
            break  # of a kernel that meets nothing but padding
        q = image + 1e-3 * image.max()
    terms = 32 * weight.numel()  # a pixel that circular padding repeats counts up to nine times
    norm = ends_above(upward(upward(square, terms).sqrt(), 4) / scale)
    return float(torch.minimum(norm, frobenius(weight)) if weight.ndim == 2 else norm)


@torch.enable_grad()
def _gram(module: nn.Module, q: Tensor) -> Tensor:
    """A linear map and its adjoint, applied to a vector."""
    q = q.detach().requires_grad_()
    image = module(q)
    (result,) = torch.autograd.grad(image, q, image.detach())
    return result


def affine(module: Any, run: Run, products: int) -> Local:
    """``W x + b``, of so many products in each entry."""
    offset = 0.0 if module.bias is None else repeated(exact(module.bias).cpu(), run)
    magnitude = absolute_norm(module, run.x.shape) * run.x.reach + offset
    return Local(offset, run.rounding(products + 2, magnitude))


def repeated(numbers: Tensor, run: Run) -> float:
    """Length of an output that has one of these numbers per channel, everywhere."""
    copies = run.count // len(numbers)
    return float(frobenius(numbers[None])) * math.sqrt(copies) * ABOVE


@rule(nn.Linear)
def _linear(module: nn.Linear, run: Run) -> Local:
    return affine(module, run, module.weight.shape[1])


@rule(nn.Conv1d, nn.Conv2d)
def _convolution(module: nn.Conv2d, run: Run) -> Local:
    refuse_fast_convolutions(module.weight)
    return affine(module, run, module.weight[0].numel())


@rule(nn.ConvTranspose2d)
def _transposed(module: nn.ConvTranspose2d, run: Run) -> Local:
    refuse_fast_convolutions(module.weight)
    return affine(module, run, module.weight[:, 0].numel() // module.groups)


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


@rule(
    nn.Identity,
    *MOVES,
    nn.ReLU,
    nn.ReLU6,
    nn.MaxPool2d,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
)
def moved(module: nn.Module, run: Run) -> Local:  # noqa: ARG001
    """Nothing is computed, and 0 stays 0."""
    return Local(0.0, 0.0)


@rule(nn.LeakyReLU, nn.PReLU)
def scaled(module: nn.Module, run: Run) -> Local:  # noqa: ARG001
    """One product; the factor may be a rounded number."""
    return Local(0.0, run.rounding(2, run.lipschitz * run.x.reach))


@rule(nn.AvgPool2d)
def _average(module: nn.AvgPool2d, run: Run) -> Local:
    size = module.kernel_size
    window = size * size if isinstance(size, int) else math.prod(size)
    run.arithmetic.check(window * run.x.reach)
    return Local(0.0, run.rounding(window + 2, run.lipschitz * run.x.reach))


@rule(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def _batch_norm(module: nn.BatchNorm2d, run: Run) -> Local:
    """``a x + (b - a m)``, at worst, with ``a = w / sqrt(v + eps)``."""
    assert module.running_mean is not None
    assert module.running_var is not None
    deviation = downward((exact(module.running_var) + module.eps).sqrt(), 2)
    slope = upward(_or_one(module.weight, deviation).abs() / deviation, 1)
    shift = slope * exact(module.running_mean).abs()
    shift = shift if module.bias is None else shift + exact(module.bias).abs()
    offset = repeated(upward(shift, 3).cpu(), run)
    lost = run.arithmetic.lost * run.x.reach  # of the factor
    return Local(offset, run.rounding(12, run.lipschitz * run.x.reach + offset) + lost)


def _or_one(weight: Tensor | None, like: Tensor) -> Tensor:
    return torch.ones_like(like) if weight is None else exact(weight)


@rule(nn.Tanh)
def _tanh(module: nn.Tanh, run: Run) -> Local:  # noqa: ARG001
    return Local(0.0, run.rounding(_LIBRARY, min(run.x.reach, math.sqrt(run.count))))


@rule(nn.Sigmoid)
def _sigmoid(module: nn.Sigmoid, run: Run) -> Local:  # noqa: ARG001
    root = math.sqrt(run.count) * ABOVE
    return Local(root / 2, run.rounding(2 * _LIBRARY, root))


@rule(nn.SiLU, nn.GELU)
def _gated(module: nn.Module, run: Run) -> Local:  # noqa: ARG001
    """The input times a number in [0, 1], which is off by a few units round-off of 1."""
    return Local(0.0, run.rounding(5 * _LIBRARY, run.x.reach))


@rule(nn.Softplus)
def _softplus(module: nn.Softplus, run: Run) -> Local:
    r"""``log1p(exp(b x)) / b``, and x from the threshold on.

    With z = b x: the argument of exp is off by ``u |z|``, which moves the result by at most
    :math:`u |z| e^z / (1 + e^z) \le u (z_+ + 1)`; exp and log1p by their own errors.
    """
    if module.threshold > math.log(run.arithmetic.largest) / 1.1:
        raise UnboundedModuleError(
            f"exp overflows below Softplus's threshold of {module.threshold}: use threshold=20"
        )
    root, beta = math.sqrt(run.count), float(module.beta)
    cut = (1.01 * math.exp(-module.threshold) + run.arithmetic.lost) / beta * root
    library = run.rounding(3 * _LIBRARY, run.x.reach + 2 * root / beta)
    run.arithmetic.check(run.x.reach * max(beta, 1.0))
    return Local(0.694 / beta * root, library + cut)
