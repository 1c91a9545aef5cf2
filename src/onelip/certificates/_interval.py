r"""Intervals of a network's outputs around samples, for regression and for scores."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from onelip.bounds import BoundMethod, bound_method
from onelip.certificates._certify import network_for, refuse_other_function
from onelip.certificates.batch_independence import refuse_mixed
from onelip.certificates.certificate import ASSUMPTIONS
from onelip.certificates.precision import full_precision
from onelip.certificates.sample_errors import errors_after_parts
from onelip.errors import UsageError
from onelip.norms.proved_once import proved_once
from onelip.norms.rounding import upward
from onelip.reading import Predictor


@dataclass(frozen=True)
class Interval:
    """Proved intervals of the outputs of a batch, and what they rest on.

    Attributes:
        prediction: ``(batch, ...)``, the outputs as computed.
        lower: ``(batch, ...)`` float64. No input within ``eps`` has a smaller output.
        upper: ``(batch, ...)`` float64. None has a larger one.
        eps: ``(batch,)`` float64, the radii, in l2 and in the units of the model's input.
        constants: ``(...)`` float64, a proved Lipschitz constant of each output.
        bound: 0-d float64, that of the whole network.
        method: name of the method that proved them.
        level: ``"real"`` or ``"float"``, as of a certificate.
    """

    prediction: Tensor
    lower: Tensor
    upper: Tensor
    eps: Tensor
    constants: Tensor
    bound: Tensor
    method: str
    level: str

    def rests_on(self) -> dict[str, Any]:
        """Return what the intervals rest on, as JSON takes it."""
        return {
            "bound": float(self.bound),
            "constants": self.constants.tolist(),
            "method": self.method,
            "level": self.level,
            "holds": ASSUMPTIONS[self.level],
        }


@torch.no_grad()
@proved_once()
def interval(
    model: Predictor,
    x: Tensor,
    eps: float | Tensor,
    *,
    method: BoundMethod | str = "product",
    level: Literal["real", "float"] = "real",
    batch_size: int = 1024,
) -> Interval:
    r"""Bound the outputs of a network on all inputs within a distance of samples.

    Bound: :math:`|f_i(x') - f_i(x)| \le L_i \epsilon` for every :math:`x'` with
        :math:`|x' - x|_2 \le \epsilon`, with a proved constant :math:`L_i` of each output: of a
        linear head that of the rest times the length of its row. Rounded outwards. At level
        ``float`` the interval holds for outputs as they are computed at :math:`x'`: the rounding
        of both passes is added (``sample_errors``).
    Shape: ``x`` is ``(batch, ...)``, outputs ``(batch, ...)``.
    Cost: one proved bound of the model and one forward pass.

    Args:
        model: in eval mode, as for ``certify``; inputs may have any size.
        x: finite inputs in the dtype of the weights.
        eps: the distance, one for all or ``(batch,)``.
        method: one of ``onelip.bounds``, or its name.
        level: what it holds for.
        batch_size: samples per forward pass.

    Raises:
        UsageError: eps is no distance, a part of the model is in training mode, or x has another
            dtype than the weights or is not finite.
        UnboundedModuleError: a part of the model has no proved bound, or, for level ``float``, its
            rounding is not known.
        NotApplicableError: the method does not cover the model.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1)).eval()
        >>> model[0].weight.data = torch.tensor([[3.0, 4.0]])
        >>> found = interval(model, torch.zeros(1, 2), 0.5)
        >>> round(float(found.upper - found.lower), 9)
        5.0
    """
    if level not in ASSUMPTIONS:
        raise UsageError(f"no level {level!r}: intervals have level 'real' or 'float'")
    radii = torch.as_tensor(eps, dtype=torch.float64).cpu()
    if radii.shape not in ((), x.shape[:1]) or not bool(((radii >= 0) & radii.isfinite()).all()):
        raise UsageError(f"eps is a distance, one for all samples or one for each, got {eps}")
    radii = radii.expand(len(x))
    network, asked = network_for(model, x), bound_method(method)
    proved = asked.logit_bounds(network, tuple(x.shape[1:]))
    with full_precision(x.device):
        outputs = torch.cat([network(part.clone()) for part in x.split(batch_size)])
        refuse_mixed(network, x[:1], outputs)
        refuse_other_function(model, network, x, batch_size)
    constants = proved.per_class.reshape(outputs.shape[1:])
    every = (len(x),) + (1,) * (outputs.ndim - 1)
    away = upward(constants * radii.view(every), 2)
    if level == "float":
        error = errors_after_parts(network, x, radii)[-1]
        away = upward(away + 2 * error.view(every), 3)
    values = outputs.double().cpu()
    sure = values.isfinite() & away.isfinite()
    infinite = torch.full_like(values, torch.inf)
    return Interval(
        prediction=outputs,
        lower=torch.where(sure, torch.nextafter(values - away, -infinite), -infinite),
        upper=torch.where(sure, torch.nextafter(values + away, infinite), infinite),
        eps=radii,
        constants=constants,
        bound=proved.network,
        method=asked.name,
        level=level,
    )
