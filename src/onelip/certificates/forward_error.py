r"""Forward error bounds of whole networks, for certificates of level ``float``.

Two numbers travel through the parts of a network: a bound s of the exact vector, from the proved
Lipschitz constants, and a bound e of its distance to the computed one. After a part with constant
L and image f(0) of 0,

.. math:: s' = L s + |f(0)|, \qquad e' = L e + (\text{what rounding does inside, on inputs up to
          } s + e),

so errors of earlier layers grow by the same constants as the attack, and the error that
each layer adds follows from the standard model of floating point (``onelip.forward_error``).

Assumptions: operations are those of IEEE 754 in the dtype of the weights, as they are inside
``full_precision``; sums may be in any order, fused or not, and subnormal numbers may be flushed to
zero, where they come in and where they come out (``torch.set_flush_denormal`` may be called after
certifying). Inputs pay for that; subnormal weights, which would change by all of themselves, are
refused. Library functions (exp, log1p, erf, tanh, sin, cos, atan2,
hypot) are within 4 units in the last place. Matrix products are no Strassen-type products, and
oneDNN's convolutions are direct ones, which is what torch asks it for.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from onelip.bounds.layer_product import flattened
from onelip.certificates.precision import full_precision
from onelip.chains import Shape
from onelip.errors import UnboundedModuleError, UsageError
from onelip.forward_error import Arithmetic, Computed
from onelip.lipschitz import refuse_hidden_behaviour, through
from onelip.norms.proved_once import proved_once


def forward_error(model: nn.Module, input_shape: Shape, reach: float) -> Tensor:
    """Proved upper bound of the rounding error of a network's output.

    Bound: ``|computed model(x) - exact model(x)|_2`` is at most this for every x of floating-point
    numbers in the dtype of the weights with ``|x|_2 <= reach``, in any batch. It grows with the
    length of sums and the norms of the matrices of absolute weights, as the worst order of
    summation demands, and is far above what is seen: 0.011 for 784-512-512-10 with orthogonal
    weights and reach 14 in float32, where 5e-7 is seen, and 2e-11 in float64. Around a sample less
    is proved (``sample_errors``).
    Cost: one proved norm per layer, and two passes of one sample.

    Args:
        model: an exported network in eval mode, in float32 or float64.
        input_shape: shape of one input, without the batch.
        reach: the largest norm of an input.

    Returns:
        A 0-d float64 tensor on the CPU.

    Raises:
        UnboundedModuleError: nothing is known of the rounding of a part, or it has hooks or patched
            methods.
        NonFiniteError: a weight is not finite, or numbers on the way may overflow.
        UsageError: reach is no length, or weights are of 16 bits or of several dtypes.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU()).eval()
        >>> _ = nn.init.ones_(model[0].weight)
        >>> bool(1e-7 < forward_error(model, (2,), 1.0) < 1e-6)
        True
        >>> bool(forward_error(model.double(), (2,), 1.0) < 1e-14)
        True

    Reference: Higham, "Accuracy and stability of numerical algorithms", 2002, sections 2.2 and 3.1.
    """
    errors = forward_errors(model, input_shape, reach)
    return errors[-1] if errors else torch.zeros((), dtype=torch.float64)


@torch.no_grad()
@proved_once()
def forward_errors(model: nn.Module, input_shape: Shape, reach: float) -> list[Tensor]:
    """Bound the rounding error after each part of the model (``layer_product.flattened``).

    Args:
        model: see ``forward_error``.
        input_shape: without the batch.
        reach: the largest length of an input.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> [error > 1e-30 for error in forward_errors(model, (1, 2, 2), 1.0)]
        [tensor(False), tensor(True)]
    """
    if not 0 <= reach < math.inf:
        raise UsageError(f"reach is the length of an input, got {reach}")
    found = followed(model, Computed(tuple(input_shape), reach))
    return [torch.tensor(value.error, dtype=torch.float64) for value in found[1:]]


def followed(model: nn.Module, start: Computed) -> list[Computed]:
    """Follow inputs through the parts of a model: what is known of them, and after each part."""
    dtype, device = _arithmetic_of(model)
    refuse_hidden_behaviour(model)
    _refuse_compiled(model)
    _refuse_subnormal(model)
    arithmetic = Arithmetic.of(dtype)
    # Subnormal entries of an input may be flushed to 0, each by at most ``lost``.
    values = [replace(start, error=arithmetic.lost * math.sqrt(start.count))]
    with full_precision(device):
        for _, part in flattened(model):
            values.append(through(part, values[-1], arithmetic))
    return values


def _refuse_compiled(model: nn.Module) -> None:
    """Refuse modules that were compiled in place: a compiler rounds in an order of its own."""
    if any(part._compiled_call_impl is not None for part in model.modules()):
        raise UnboundedModuleError(
            "the model is compiled in place (model.compile()), and nothing is known of the "
            "rounding of compiled code: copy.deepcopy(model) is not compiled, or use level='real'"
        )


def _refuse_subnormal(model: nn.Module) -> None:
    """Refuse subnormal weights: processors that flush them to 0 lose the whole number."""
    for name, number in [*model.named_parameters(), *model.named_buffers()]:
        if number.is_floating_point():
            size = number.abs()
            if bool(((size > 0) & (size < torch.finfo(number.dtype).tiny)).any()):
                raise UnboundedModuleError(
                    f"{name} holds numbers below {torch.finfo(number.dtype).tiny:.3g}, which count "
                    "as 0 where subnormal numbers are flushed: set them to 0, or use level='real'"
                )


def _arithmetic_of(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Return dtype and device of a model; float32 without weights, the larger error."""
    numbers = [*model.parameters(), *model.buffers()]
    dtypes = {n.dtype for n in numbers if n.is_floating_point()} or {torch.float32}
    devices = {n.device for n in numbers} or {torch.device("cpu")}
    if len(dtypes) > 1 or not dtypes <= {torch.float32, torch.float64}:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise UsageError(f"rounding is bounded in float32 or float64, not {names}: model.float()")
    if len(devices) > 1 or {device.type for device in devices} - {"cpu", "cuda"}:
        raise UnboundedModuleError(
            f"nothing is known of rounding on {', '.join(map(str, devices))}: move the model to "
            "the CPU, or use level='real'"
        )
    return dtypes.pop(), devices.pop()
