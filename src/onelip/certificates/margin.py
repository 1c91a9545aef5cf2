r"""Certificates from the margin (Tsuzuku, Sato, Sugiyama, NeurIPS 2018).

The prediction y holds around x as far as no logit difference can lose its margin: for every
rival i, :math:`f_y - f_i` is Lipschitz with constant :math:`\sqrt 2 L`, L that of the network, or
:math:`L \|w_y - w_i\|` behind a linear head, L that of the body. The radius is the smallest
:math:`(f_y(x) - f_i(x)) / L_{yi}` over **all** rivals.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from onelip.certificates.certificate import Certificate
from onelip.certificates.precision import full_precision
from onelip.errors import UsageError
from onelip.layers.last_layer import LastLayer
from onelip.lipschitz import finite, lipschitz_bound, refuse_hidden_behaviour
from onelip.norms.rounding import downward, exact, frobenius, product, upward

Head = nn.Linear | LastLayer


@torch.no_grad()
def certify(
    model: nn.Module, x: Tensor, labels: Tensor | None = None, *, batch_size: int = 1024
) -> Certificate:
    """Predict a batch, with a radius around each sample in which the prediction cannot change.

    Bound: the radius rests on ``lipschitz_bound(model)``, or, where the last module of a
    Sequential is linear, on that of the rest and on ``|w_y - w_i|``, which is never looser.
    Rounding of the division goes downwards.
    Shape: ``x`` is ``(batch, ...)``.
    Cost: one proved bound of the model and one forward pass. A model in its training form should
    go through ``onelip.export`` first: the radii are larger.

    Args:
        model: in eval mode, from inputs in [0, 1] to logits; input scaling is inside the model
            (``onelip.layers.Normalize``), so that radii are in the units of x.
        x: inputs in [0, 1].
        labels: true classes; samples that are predicted wrong then get radius 0.
        batch_size: samples per forward pass.

    Raises:
        UsageError: a part of the model is in training mode, x leaves [0, 1] or is not finite, fewer
            than two logits, labels out of range.
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
    parts = _flattened(model)
    layers = [(name, lipschitz_bound(part)) for name, part in parts]
    head = _linear_head(parts)
    factors = [bound for _, bound in layers]
    body = product(factors[:-1] if head is not None else factors)
    with full_precision(x.device):
        logits = torch.cat([model(part) for part in x.split(batch_size)])
    _check_logits(logits, len(x), labels)
    prediction, radius = _radii(logits, body, head)
    if labels is not None:
        radius = torch.where(prediction == labels.to(prediction.device), radius, 0.0)
    return Certificate(
        prediction=prediction,
        radius=radius,
        bound=finite(product(factors), "the model"),
        body_bound=body,
        layer_bounds=tuple((name, float(bound)) for name, bound in layers),
        head="general" if head is None else "pairwise",
        level="real",
        dtype=logits.dtype,
        device=str(logits.device),
    )


def _radii(logits: Tensor, body: Tensor, head: Head | None) -> tuple[Tensor, Tensor]:
    """Predictions, and radii in float64."""
    scores = logits.detach().double().cpu()
    prediction = scores.argmax(1)
    margins = scores.gather(1, prediction[:, None]) - scores
    margins = margins.clamp(max=torch.finfo(scores.dtype).max)  # a difference that overflowed
    if head is None:
        slope = upward(body * math.sqrt(2), 2).expand(scores.shape[1], scores.shape[1])
    else:
        slope = upward(body * distances(head.weight), 1)
    slope = slope.nan_to_num(nan=math.inf, posinf=math.inf)  # 0 times a distance that overflowed
    quotient = downward(margins / slope[prediction], 4)
    quotient = torch.where(margins > 0, quotient, 0.0)  # 0 / 0 in a constant network
    quotient.scatter_(1, prediction[:, None], math.inf)  # not its own rival
    radius = quotient.amin(1)
    finite = torch.isfinite(scores).all(1)
    return prediction.to(logits.device), torch.where(finite, radius, 0.0).to(logits.device)


def distances(rows: Tensor) -> Tensor:
    """Upper bounds of the distances between the rows of a matrix: ``(rows, rows)``, float64."""
    weight = exact(rows).cpu()
    return torch.stack([frobenius(upward((weight - row).abs(), 1)[:, None]) for row in weight])


def _flattened(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The parts of nested Sequentials, in order, by dotted name."""
    if type(module) is not nn.Sequential:
        return [(prefix or type(module).__name__, module)]
    parts = []
    for name, part in zip(module._modules, module, strict=True):  # a module may occur twice
        parts += _flattened(part, f"{prefix}.{name}" if prefix else name)
    return parts


def _linear_head(parts: list[tuple[str, nn.Module]]) -> Head | None:
    last = parts[-1][1] if parts else None
    if isinstance(last, nn.Linear) and type_before_parametrizations(last) is nn.Linear:
        return last
    return last if type(last) is LastLayer else None


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
    if labels is None:
        return
    if labels.shape != logits.shape[:1]:
        raise UsageError(f"{tuple(labels.shape)} labels for {len(logits)} samples")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
        raise UsageError(f"labels from {int(labels.min())} to {int(labels.max())} are out of range")
