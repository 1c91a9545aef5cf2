"""The records of torch's elementwise activations.

Constants without a closed form are rounded outwards. Softplus is taken as
``log(1 + exp(beta x)) / beta``: from a threshold of 20 on torch computes x instead, which is off by
at most 1.1e-10 of the value: rounding, as far as the level ``real`` is concerned.

Slopes of smooth activations turn where the second derivative is 0; those points are known to 1e-15,
where a slope is off by less than 1e-30 from its extreme value.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.activations.record import ACTIVATIONS, Activation, Curve, Interval, Pieces
from onelip.errors import UnboundedModuleError
from onelip.forward_error import ABOVE, Local, Run, moved, scaled
from onelip.norms.rounding import exact

_LIBRARY = 8  # units round-off: 4 units in the last place, of exp, tanh and the like
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805
_SILU_TURN, _GELU_TURN, _TANH_GELU_TURN = 2.3993572805154677, math.sqrt(2), 1.4185040087908284
_MISH_TURNS = (-2.2563763963607931, 1.4905711794854285)


def _fixed(low: float, high: float) -> Callable[[Any], Interval]:
    """The interval of activations without settings."""
    return lambda _: (low, high)


def _pieces(*parts: float | Curve) -> Callable[[Any], Pieces]:
    """Slopes and the ends between them, in turn, of activations without settings."""
    ends = tuple(end for end in parts[1::2] if not isinstance(end, Curve))
    return lambda _: Pieces(ends, tuple(parts[::2]))


def _turning(curve: Curve, *turns: float) -> Callable[[Any], Pieces]:
    """Return the pieces of one curve that rises and falls in turn."""
    return lambda _: Pieces(turns, (curve,) * (len(turns) + 1))


def _relative(derivative: Callable[[Tensor], Tensor]) -> Curve:
    """A curve without settings that float64 computes up to a relative error."""
    return Curve(lambda _, x: derivative(x))


def _absolute(derivative: Callable[[Tensor], Tensor]) -> Curve:
    """A curve without settings that is computed with cancellation."""
    return Curve(lambda _, x: derivative(x), relative=False)


# slopes, with settings


def _leaky_relu(module: nn.LeakyReLU) -> Interval:
    return min(module.negative_slope, 1.0), max(module.negative_slope, 1.0)


def _prelu(module: nn.PReLU) -> Interval:
    weight = exact(module.weight)
    return min(1.0, float(weight.min())), max(1.0, float(weight.max()))


def _elu(module: nn.ELU) -> Interval:
    return min(module.alpha, 0.0), max(module.alpha, 1.0)


def _celu(module: nn.CELU) -> Interval:
    if not 0 < module.alpha < math.inf:
        raise UnboundedModuleError(f"CELU with alpha={module.alpha} is steep without limit")
    return 0.0, 1.0


def _softplus(module: nn.Softplus) -> Interval:
    if module.beta <= 0 or module.threshold < 20:
        raise UnboundedModuleError("Softplus jumps at its threshold: use beta > 0, threshold >= 20")
    return 0.0, 1.0


def _softshrink(module: nn.Softshrink) -> Interval:
    if module.lambd < 0:
        raise UnboundedModuleError("Softshrink with a negative lambd is not continuous")
    return 0.0, 1.0


# slopes between two inputs


def _sech_squared(x: Tensor) -> Tensor:
    return x.cosh().square().reciprocal()


def _sigmoid_slope(x: Tensor) -> Tensor:
    return (x / 2).cosh().square().reciprocal() / 4


def _silu_slope(x: Tensor) -> Tensor:
    return x.sigmoid() + x * _sigmoid_slope(x)


def _gelu_slope(x: Tensor) -> Tensor:
    density = (-x.square() / 2).exp() / math.sqrt(2 * math.pi)
    slope: Tensor = torch.special.ndtr(x) + x * density
    return slope


def _tanh_gelu_slope(x: Tensor) -> Tensor:
    root = math.sqrt(2 / math.pi)
    inner, steep = root * (x + 0.044715 * x**3), root * (1 + 3 * 0.044715 * x.square())
    return (1 + inner.tanh()) / 2 + x * (_sech_squared(inner) * steep).nan_to_num(0.0) / 2


def _mish_slope(x: Tensor) -> Tensor:
    gate = torch.logaddexp(x, torch.zeros_like(x))
    return gate.tanh() + x * _sech_squared(gate) * x.sigmoid()


def _gelu_pieces(module: nn.GELU) -> Pieces:
    turn, slope = _GELU_TURN, _gelu_slope
    if module.approximate != "none":
        turn, slope = _TANH_GELU_TURN, _tanh_gelu_slope
    return _turning(_absolute(slope), -turn, turn)(module)


def _celu_pieces(_: nn.CELU) -> Pieces:
    return Pieces((0.0,), (Curve(lambda m, x: (x / m.alpha).exp()), 1.0))


def _elu_pieces(_: nn.ELU) -> Pieces:
    return Pieces((0.0,), (Curve(lambda m, x: m.alpha * x.exp()), 1.0))


def _softplus_pieces(_: nn.Softplus) -> Pieces:
    return Pieces((), (Curve(lambda m, x: (m.beta * x).sigmoid()),))


# second derivatives, with settings


def _bent_elu(module: nn.ELU) -> Interval:
    if module.alpha != 1:
        raise UnboundedModuleError(f"ELU with alpha={module.alpha} has a kink: use alpha=1")
    return 0.0, 1.0


def _bent_celu(module: nn.CELU) -> Interval:
    return 0.0, math.nextafter(1 / module.alpha, math.inf)


# primitives


def _log_cosh(x: Tensor) -> Tensor:
    return x.abs() + F.softplus(-2 * x.abs()) - math.log(2)


def _log_one_plus_exp(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))  # F.softplus is x from 20 on


def _half_square(x: Tensor) -> Tensor:
    return x.square() / 2


def _below_zero(alpha: float, x: Tensor) -> Tensor:
    """``alpha^2 (exp(x / alpha) - 1) - alpha x`` for x < 0, the primitive of CELU there."""
    below = x.clamp(max=0)
    return alpha * (alpha * (below / alpha).expm1() - below)


def _clamp_primitive(module: nn.Hardtanh, x: Tensor) -> Tensor:
    """The distance by which x leaves the interval is not squared."""
    inside = x.clamp(module.min_val, module.max_val)
    return _half_square(inside) + inside * (x - inside)


def _hardsigmoid_primitive(_: nn.Hardsigmoid, x: Tensor) -> Tensor:
    inside = x.clamp(-3, 3)
    return inside.square() / 12 + inside / 2 + (x - 3).relu()


def _gelu_primitive(module: nn.GELU, x: Tensor) -> Tensor:
    if module.approximate != "none":
        raise UnboundedModuleError("only GELU(approximate='none') has a known primitive")
    density = (-_half_square(x)).exp() / math.sqrt(2 * math.pi)
    twice: Tensor = (x.square() - 1) * torch.special.ndtr(x) + x * density
    return twice / 2


# rounding


def _bounded(value_at_0: float, operations: int) -> Callable[[Any, Run], Local]:
    """Rule of activations between -1 and 1 that are computed by library functions."""

    def rule(_: nn.Module, run: Run) -> Local:
        root = math.sqrt(run.count) * ABOVE
        return Local(value_at_0 * root, run.rounding(operations, root))

    return rule


def _tanh_error(_: nn.Tanh, run: Run) -> Local:
    root = math.sqrt(run.count)
    reach = run.x.reach
    least = reach.clamp(max=root) if isinstance(reach, Tensor) else min(reach, root)
    return Local(0.0, run.rounding(_LIBRARY, least))


def _of_size(operations: int, sizes: float) -> Callable[[Any, Run], Local]:
    """Rule of activations with ``f(0) = 0`` whose terms are no larger than so many inputs."""
    return lambda _, run: Local(0.0, run.rounding(operations, sizes * run.x.reach))


def _hardtanh_error(module: nn.Hardtanh, run: Run) -> Local:
    """The ends of the interval may have been rounded."""
    root = math.sqrt(run.count) * ABOVE
    ends = [abs(end) for end in (module.min_val, module.max_val) if math.isfinite(end)]
    offset = abs(min(max(0.0, module.min_val), module.max_val)) * root
    return Local(offset, run.rounding(1, max(ends, default=0.0) * root))


def _hardsigmoid_error(_: nn.Hardsigmoid, run: Run) -> Local:
    """A sum that is clamped, and a quotient or a product."""
    root = math.sqrt(run.count) * ABOVE
    return Local(root / 2, run.rounding(6, run.x.reach + 3 * root))


def _log_sigmoid_error(_: nn.LogSigmoid, run: Run) -> Local:
    """``min(x, 0) - log1p(exp(-|x|))``."""
    root = math.sqrt(run.count) * ABOVE
    return Local(0.694 * root, run.rounding(3 * _LIBRARY, run.x.reach + 2 * root))


def _exponential_error(module: Any, run: Run) -> Local:
    r"""``alpha (exp(z) - 1)`` below 0, with z the input or the input over alpha, perhaps scaled.

    A rounded z moves the exponential by at most :math:`u |z| e^z`, no more than u times the input
    after the product with alpha.
    """
    alpha = abs(getattr(module, "alpha", _SELU_ALPHA)) * _SELU_SCALE
    magnitude = 2 * _SELU_SCALE * run.x.reach + 2 * alpha * math.sqrt(run.count) * ABOVE
    return Local(0.0, run.rounding(_LIBRARY + 8, magnitude))


def _softplus_error(module: nn.Softplus, run: Run) -> Local:
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


ACTIVATIONS |= {
    nn.Identity: Activation(
        slopes=_fixed(1, 1),
        pieces=_pieces(1.0),
        second_derivatives=_fixed(0, 0),
        homogeneous=True,
        roundings=0,
        forward_error=moved,
    ),
    nn.ReLU: Activation(
        slopes=_fixed(0, 1),
        pieces=_pieces(0.0, 0.0, 1.0),
        homogeneous=True,
        roundings=0,
        forward_error=moved,
        aten="relu",
        onnx=("Relu", {}),
    ),
    nn.LeakyReLU: Activation(
        slopes=_leaky_relu,
        pieces=lambda module: Pieces((0.0,), (module.negative_slope, 1.0)),
        homogeneous=True,
        roundings=1,
        forward_error=scaled,
        aten="leaky_relu",
        onnx=("LeakyRelu", {"alpha": 0.01}),
    ),
    nn.PReLU: Activation(
        slopes=_prelu,
        pieces=lambda module: Pieces((0.0,), (exact(module.weight).cpu(), 1.0)),
        homogeneous=True,
        roundings=1,
        forward_error=scaled,
        aten="prelu",
        onnx=("PRelu", {}),
    ),
    nn.ReLU6: Activation(
        slopes=_fixed(0, 1),
        pieces=_pieces(0.0, 0.0, 1.0, 6.0, 0.0),
        primitive=lambda _, x: _clamp_primitive(nn.Hardtanh(0.0, 6.0), x),
        roundings=0,
        forward_error=moved,
        aten="relu6",
        onnx=("Clip", {}),
    ),
    nn.Hardtanh: Activation(
        slopes=_fixed(0, 1),
        pieces=lambda module: Pieces((module.min_val, module.max_val), (0.0, 1.0, 0.0)),
        primitive=_clamp_primitive,
        roundings=0,
        forward_error=_hardtanh_error,
        aten="hardtanh",
        onnx=("Clip", {}),
    ),
    nn.Tanh: Activation(
        slopes=_fixed(0, 1),
        pieces=_turning(_relative(_sech_squared), 0.0),
        second_derivatives=_fixed(-0.76981, 0.76981),
        primitive=lambda _, x: _log_cosh(x),
        forward_error=_tanh_error,
        aten="tanh",
        onnx=("Tanh", {}),
    ),
    nn.Tanhshrink: Activation(
        slopes=_fixed(0, 1),
        pieces=_turning(_relative(lambda x: x.tanh().square()), 0.0),
        second_derivatives=_fixed(-0.76981, 0.76981),
        primitive=lambda _, x: _half_square(x) - _log_cosh(x),
        forward_error=_of_size(_LIBRARY + 1, 2),
    ),
    nn.Sigmoid: Activation(
        slopes=_fixed(0, 0.25),
        pieces=_turning(_relative(_sigmoid_slope), 0.0),
        second_derivatives=_fixed(-0.096226, 0.096226),
        primitive=lambda _, x: _log_one_plus_exp(x),
        forward_error=_bounded(0.5, 2 * _LIBRARY),
        aten="sigmoid",
        onnx=("Sigmoid", {}),
    ),
    nn.LogSigmoid: Activation(
        slopes=_fixed(0, 1),
        pieces=_pieces(_relative(lambda x: (-x).sigmoid())),
        second_derivatives=_fixed(-0.25, 0),
        forward_error=_log_sigmoid_error,
        aten="log_sigmoid",
    ),
    nn.Hardsigmoid: Activation(
        slopes=_fixed(0, 0.16666666666666669),
        pieces=_pieces(0.0, -3.0, 0.16666666666666669, 3.0, 0.0),
        primitive=_hardsigmoid_primitive,
        forward_error=_hardsigmoid_error,
        aten="hardsigmoid",
        onnx=("HardSigmoid", {}),
    ),
    nn.Softsign: Activation(
        slopes=_fixed(0, 1),
        pieces=_turning(_relative(lambda x: (1 + x.abs()).square().reciprocal()), 0.0),
        second_derivatives=_fixed(-2, 2),
        primitive=lambda _, x: x.abs() - x.abs().log1p(),
        forward_error=_of_size(4, 1),
        onnx=("Softsign", {}),
    ),
    nn.ELU: Activation(
        slopes=_elu,
        pieces=_elu_pieces,
        second_derivatives=_bent_elu,
        primitive=lambda m, x: m.alpha * _below_zero(1.0, x) + _half_square(x.relu()),
        forward_error=_exponential_error,
        aten="elu",
        onnx=("Elu", {"alpha": 1.0}),
    ),
    nn.CELU: Activation(
        slopes=_celu,
        pieces=_celu_pieces,
        second_derivatives=_bent_celu,
        primitive=lambda m, x: _below_zero(m.alpha, x) + _half_square(x.relu()),
        forward_error=_exponential_error,
        aten="celu",
        onnx=("Celu", {"alpha": 1.0}),
    ),
    nn.SELU: Activation(
        slopes=_fixed(0, 1.7580993408473769),
        pieces=_pieces(
            _relative(lambda x: _SELU_SCALE * _SELU_ALPHA * x.exp()),
            0.0,
            math.nextafter(_SELU_SCALE, math.inf),
        ),
        primitive=lambda _, x: (
            _SELU_SCALE * (_SELU_ALPHA * _below_zero(1.0, x) + _half_square(x.relu()))
        ),
        forward_error=_exponential_error,
        aten="selu",
        onnx=("Selu", {}),
    ),
    nn.GELU: Activation(
        slopes=_fixed(-0.12905, 1.12905),
        pieces=_gelu_pieces,
        second_derivatives=_fixed(-0.10799, 0.79789),
        primitive=_gelu_primitive,
        forward_error=_of_size(5 * _LIBRARY, 1),
        aten="gelu",
        onnx=("Gelu", {"approximate": "none"}),
    ),
    nn.SiLU: Activation(
        slopes=_fixed(-0.09984, 1.09984),
        pieces=_turning(_absolute(_silu_slope), -_SILU_TURN, _SILU_TURN),
        second_derivatives=_fixed(-0.03692, 0.5),
        forward_error=_of_size(5 * _LIBRARY, 1),
        aten="silu",
    ),
    nn.Mish: Activation(
        slopes=_fixed(-0.11253, 1.0885),
        pieces=_turning(_absolute(_mish_slope), *_MISH_TURNS),
        second_derivatives=_fixed(-0.05904, 0.64421),
        forward_error=_of_size(8 * _LIBRARY, 1),
        aten="mish",
        onnx=("Mish", {}),
    ),
    nn.Hardswish: Activation(
        slopes=_fixed(-0.5, 1.5),
        pieces=_pieces(0.0, -3.0, _absolute(lambda x: x / 3 + 0.5), 3.0, 1.0),
        forward_error=_of_size(12, 1),
        aten="hardswish",
        onnx=("HardSwish", {}),
    ),
    nn.Softplus: Activation(
        slopes=_softplus,
        pieces=_softplus_pieces,
        second_derivatives=lambda module: (0.0, module.beta / 4),
        forward_error=_softplus_error,
        aten="softplus",
        onnx=("Softplus", {}),
    ),
    nn.Softshrink: Activation(
        slopes=_softshrink,
        pieces=lambda module: Pieces((-module.lambd, module.lambd), (1.0, 0.0, 1.0)),
        primitive=lambda module, x: _half_square((x.abs() - module.lambd).relu()),
        roundings=1,
        forward_error=_of_size(3, 1),
        aten="softshrink",
    ),
}
