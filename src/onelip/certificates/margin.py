r"""Certificates from the margin (Tsuzuku, Sato, Sugiyama, NeurIPS 2018).

The prediction y holds around x as far as no logit difference can lose its margin: for every
rival i, :math:`f_y - f_i` is Lipschitz with constant :math:`\sqrt 2 L`, L that of the network, or
:math:`L \|w_y - w_i\|` behind a linear head, L that of the body. The radius is the smallest
:math:`(f_y(x) - f_i(x)) / L_{yi}` over **all** rivals.
"""

import math

import torch
from torch import Tensor, nn

from onelip.certificates.certificate import Certificate
from onelip.certificates.constants import Prover, product_constants
from onelip.certificates.precision import full_precision
from onelip.errors import UsageError
from onelip.lipschitz import refuse_hidden_behaviour
from onelip.norms.rounding import downward


@torch.no_grad()
def certify(
    model: nn.Module,
    x: Tensor,
    labels: Tensor | None = None,
    *,
    constants: Prover = product_constants,
    batch_size: int = 1024,
) -> Certificate:
    """Predict a batch, with a radius around each sample in which the prediction cannot change.

    Bound: the radius rests on ``lipschitz_bound(model)``, or, where the last module of a
    Sequential is linear, on that of the rest and on ``|w_y - w_i|``, which is never looser; with
    ``constants=liplt_constants``, on LipLT for each pair of logits, which is far tighter for
    ordinary networks. Rounding of the division goes downwards.
    Shape: ``x`` is ``(batch, ...)``.
    Cost: one proved bound of the model and one forward pass. A model in its training form should
    go through ``onelip.export`` first: the radii are larger.

    Args:
        model: in eval mode, from inputs in [0, 1] to logits; input scaling is inside the model
            (``onelip.layers.Normalize``), so that radii are in the units of x.
        x: inputs in [0, 1].
        labels: true classes; samples that are predicted wrong then get radius 0.
        constants: how the constants of logit differences are proved: ``product_constants`` or
            ``liplt_constants``.
        batch_size: samples per forward pass.

    Raises:
        UsageError: a part of the model is in training mode, x leaves [0, 1] or is not finite, fewer
            than two logits, logits in 16 bits, labels out of range.
        UnboundedModuleError: a part of the model has no proved bound.
        NonFiniteError: a weight or the bound is not finite.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
        >>> certificate = certify(model, torch.rand(3, 1, 2, 2))
        >>> certificate.level, certificate.head, certificate.radius.shape
        ('real', 'pairwise', torch.Size([3]))
    """
    _check_input(model, x)
    refuse_hidden_behaviour(model)
    proved = constants(model, tuple(x.shape[1:]))
    with full_precision(x.device):
        logits = torch.cat([model(part) for part in x.split(batch_size)])
    _check_logits(logits, len(x), labels)
    prediction, radius = _radii(logits, proved.pairwise(logits.shape[1]))
    if labels is not None:
        radius = torch.where(prediction == labels.to(prediction.device), radius, 0.0)
    return Certificate(
        prediction=prediction,
        radius=radius,
        bound=proved.bound,
        body_bound=proved.body_bound,
        layer_bounds=proved.layer_bounds,
        method=proved.method,
        head=proved.head,
        level="real",
        dtype=logits.dtype,
        device=str(logits.device),
    )


def _radii(logits: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions, and radii in float64, from constants of pairs of logits."""
    scores = logits.detach().double().cpu()
    prediction = scores.argmax(1)
    margins = scores.gather(1, prediction[:, None]) - scores
    margins = margins.clamp(max=torch.finfo(scores.dtype).max)  # a difference that overflowed
    slope = slope.nan_to_num(nan=math.inf, posinf=math.inf)  # 0 times a distance that overflowed
    quotient = downward(margins / slope[prediction], 4)
    quotient = torch.where(margins > 0, quotient, 0.0)  # 0 / 0 in a constant network
    quotient.scatter_(1, prediction[:, None], math.inf)  # not its own rival
    radius = quotient.amin(1)
    finite = torch.isfinite(scores).all(1)
    return prediction.to(logits.device), torch.where(finite, radius, 0.0).to(logits.device)


def _check_input(model: nn.Module, x: Tensor) -> None:
    if any(part.training for part in model.modules()):
        raise UsageError("the model, or a part of it, is in training mode: call model.eval() first")
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise UsageError(
            "inputs leave [0, 1]: radii are in pixel units, so scale inside the model with "
            "onelip.layers.Normalize"
        )


def _check_logits(logits: Tensor, count: int, labels: Tensor | None) -> None:
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        raise UsageError(f"logits of shape {tuple(logits.shape)}, not ({count}, 2 or more classes)")
    if torch.finfo(logits.dtype).bits < 32:
        raise UsageError(
            f"logits in {str(logits.dtype).removeprefix('torch.')} are rounded by more than "
            "margins can bear: certify in 32 bits, model.float()"
        )
    if labels is None:
        return
    if labels.shape != logits.shape[:1]:
        raise UsageError(f"{tuple(labels.shape)} labels for {len(logits)} samples")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise UsageError(f"labels from {int(labels.min())} to {int(labels.max())} are out of range")
