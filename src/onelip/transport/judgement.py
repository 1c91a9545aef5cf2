"""Lower bounds of a Wasserstein-1 distance that a critic proves on held-out samples."""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.certificates.batch_independence import refuse_mixed
from onelip.certificates.forward_error import forward_error
from onelip.certificates.precision import full_precision
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.lipschitz import lipschitz_bound
from onelip.norms.rounding import UNIT
from onelip.transport.critic_training import check_samples
from onelip.transport.intervals import bernstein, student

_BATCH = 512


@dataclass(frozen=True)
class LowerBound:
    """Lower bound of a Wasserstein-1 distance from a critic, in the unit of the samples.

    Args:
        value: difference of the mean scores of held-out samples, ``rounding`` subtracted.
        lower: lower end of the confidence interval: the distance is above it, except with
            probability ``(1 - confidence) / 2``.
        upper: upper end of the interval: it limits the critic's gap, not the distance.
        confidence: confidence of the interval, two-sided.
        interval: ``"t"`` is right as the samples grow, ``"bernstein"`` for every number of them.
        constant: proved Lipschitz constant of the critic, by which its scores were divided.
        rounding: proved bound of the rounding error of ``value``; None if it is not known for
            some layer, and then the bound holds in real arithmetic.
        critic: the exported critic, in float64.
        scores_p: scores over constant, of the held-out samples of P.
        scores_q: scores over constant, of the held-out samples of Q.
        history: steps of the training, with mean values on training batches, not divided.
    """

    value: float
    lower: float
    upper: float
    confidence: float
    interval: Literal["t", "bernstein"]
    constant: float
    rounding: float | None
    critic: nn.Module = field(repr=False)
    scores_p: Tensor = field(repr=False)
    scores_q: Tensor = field(repr=False)
    history: list[tuple[int, float]] = field(default_factory=list, repr=False)

    @property
    def samples(self) -> tuple[int, int]:
        """Numbers of held-out samples."""
        return len(self.scores_p), len(self.scores_q)


@torch.no_grad()
def judge(
    critic: nn.Module,
    p: Tensor,
    q: Tensor,
    *,
    confidence: float = 0.95,
    diameter: float | None = None,
) -> LowerBound:
    """Prove a lower bound from a critic, on samples that it was not trained on.

    The critic is exported and run in float64; its scores are divided by its proved constant.

    Cost: one proved norm per layer, and one pass of all samples.

    Args:
        critic: samples to ``(batch, 1)``; left alone.
        p: samples ``(n, ...)`` of P, which the critic has not seen.
        q: samples ``(m, ...)`` of Q, likewise.
        confidence: of the interval.
        diameter: of a set in which all samples lie; None for Welch's t interval.

    Raises:
        UsageError: samples of different shapes, too few, not finite, or beyond the diameter; more
            than one output per sample.
        UnboundedModuleError: the critic has a part of which no constant is proved.
        NonFiniteError: a weight or a score is not finite.

    Example:
        >>> found = judge(nn.Linear(1, 1), torch.zeros(9, 1), torch.ones(9, 1))
        >>> bool(abs(abs(found.value) - 1) < 1e-9)  # whatever the weight
        True
    """
    check_samples(p, q)
    proved = export(critic).double()
    constant = float(lipschitz_bound(proved))
    scores_p, scores_q = (_scores(proved, samples, constant) for samples in (p, q))
    each = _score_error(proved, (p, q), (scores_p, scores_q), constant)
    # One error for each of the two means, and the rounding of the means themselves.
    rounding = None if each is None else 2 * each + _error_of_means(scores_p, scores_q)
    if diameter is None:
        ends = student(scores_p, scores_q, confidence, score_error=each or 0.0)
    else:
        check_diameter(diameter, p, q)
        ends = bernstein(scores_p, scores_q, confidence, diameter, score_error=each or 0.0)
    lower, upper = ends
    return LowerBound(
        value=float(scores_p.mean() - scores_q.mean()) - (rounding or 0.0),
        lower=lower - (rounding or 0.0),
        upper=upper + (rounding or 0.0),
        confidence=confidence,
        interval="t" if diameter is None else "bernstein",
        constant=constant,
        rounding=rounding,
        critic=proved,
        scores_p=scores_p,
        scores_q=scores_q,
    )


def _scores(critic: nn.Module, samples: Tensor, constant: float) -> Tensor:
    """Return the score of each sample, divided by the constant."""
    with full_precision(samples.device):
        batches = samples.split(_BATCH)
        parts = [critic(batch.to(torch.float64, copy=True)) for batch in batches]
        for batch, found in zip(batches, parts, strict=True):
            if found.numel() != len(batch):
                raise UsageError(
                    f"a critic has one output per sample, not {tuple(found.shape)} of {len(batch)}"
                )
        scores = torch.cat([part.flatten() for part in parts])
        refuse_mixed(critic, samples[:1].double(), scores)
    scores = scores / (constant or 1.0)
    if not scores.isfinite().all():
        raise NonFiniteError("the critic has infinite or NaN scores: its bias is out of range")
    return scores


def _score_error(
    critic: nn.Module,
    samples: tuple[Tensor, Tensor],
    scores: tuple[Tensor, Tensor],
    constant: float,
) -> float | None:
    """Bound the error of a score; None if a layer's rounding is not known."""
    reach = max(float(x.double().flatten(1).norm(dim=1).max()) for x in samples) * (1 + 1e-9)
    try:
        forward = float(forward_error(critic, tuple(samples[0].shape[1:]), reach))
    except UnboundedModuleError:
        return None
    largest = max(float(s.abs().max()) for s in scores)
    return forward / (constant or 1.0) * (1 + 4 * UNIT) + 2 * UNIT * largest


def _error_of_means(*scores: Tensor) -> float:
    """Bound the rounding of the difference of the means, computed from given scores."""
    return sum((len(s) + 8) * 2 * UNIT * float(s.abs().max()) for s in scores)


def check_diameter(diameter: float, p: Tensor, q: Tensor) -> None:
    """Refuse samples further apart than the diameter; only some pairs are checked.

    Raises:
        UsageError: two are.
    """
    furthest = max(float((s - p[:1]).double().flatten(1).norm(dim=1).max()) for s in (p, q))
    if furthest > diameter * (1 + 1e-6):
        raise UsageError(
            f"two samples are {furthest:.6g} apart, more than the diameter of {diameter:.6g}: "
            "sqrt(d) for d pixels in [0, 1]"
        )
