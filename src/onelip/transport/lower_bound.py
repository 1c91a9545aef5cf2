r"""Lower bounds of the Wasserstein-1 distance from 1-Lipschitz critics.

By Kantorovich and Rubinstein

.. math:: W_1(P, Q) = \sup_{|f|_L \le 1} E_P f - E_Q f,

so every critic f with a *proved* constant L gives :math:`(E_P f - E_Q f) / L \le W_1`. The critic
is trained on one part of the samples and judged on another that it never saw: there the difference
of the means is an unbiased estimate of :math:`E_P f - E_Q f`, with a confidence interval. On its
own training samples it would have been chosen to be large.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from onelip.certificates.forward_error import forward_error
from onelip.certificates.precision import full_precision
from onelip.certificates.separate import refuse_mixed
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.export import export
from onelip.lipschitz import lipschitz_bound
from onelip.models import dense_critic
from onelip.norms.rounding import UNIT
from onelip.transport.critic_training import CriticTraining, Progress, check_samples
from onelip.transport.intervals import bernstein, student

_BATCH = 512


@dataclass(frozen=True)
class LowerBound:
    """What a critic proves of a Wasserstein-1 distance, in the unit of the samples.

    Args:
        value: difference of the mean scores of held-out samples, ``rounding`` subtracted.
        lower: lower end of the confidence interval: the distance is above it, but with probability
            ``(1 - confidence) / 2``.
        upper: its upper end; of what the critic sees, not of the distance.
        confidence: of the interval, two-sided.
        interval: ``"t"`` is right as the samples grow, ``"bernstein"`` for every number of them.
        constant: proved Lipschitz constant of the critic, by which its scores were divided.
        rounding: proved bound of what floating point did to ``value``; None if it is not known of
            some layer, and then the bound holds in real arithmetic.
        critic: exported, in float64.
        scores_p: critic over constant, of the held-out samples of P.
        scores_q: of those of Q.
        history: of the training: step and mean value on training batches, not divided.
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


def wasserstein_lower_bound(
    samples_p: Tensor,
    samples_q: Tensor,
    critic: nn.Module | None = None,
    *,
    steps: int = 2000,
    batch: int = 256,
    lr: float = 1e-2,
    held_out: float = 0.5,
    confidence: float = 0.95,
    diameter: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LowerBound:
    """Train a critic on a part of the samples, and judge it on the rest.

    Cost: ``steps`` training steps, one proved norm per layer, one pass of the held-out samples.

    Args:
        samples_p: independent samples ``(n, ...)`` of P, floats.
        samples_q: independent samples ``(m, ...)`` of Q, of the same shape.
        critic: samples to ``(batch, 1)``, of layers whose constant is proved; trained in place. By
            default a ``dense_critic``, for images too; ``dcgan_critic`` convolves.
        steps: of the training.
        batch: samples of P, and of Q, in a step.
        lr: learning rate.
        held_out: share of the samples that the critic is judged on.
        confidence: of the interval.
        diameter: of a set in which all samples lie, such as ``d ** 0.5`` for images of d pixels in
            [0, 1]. With it the interval holds for every number of samples; see ``judge``.
        seed: of the split, the batches, and the weights of a default critic.
        progress: called after each step with its number and the running value.

    Raises:
        UsageError: samples of different shapes, too few, or not finite.
        UnboundedModuleError: the critic has a part of which no constant is proved.
        NonFiniteError: the training diverged.

    Example:
        >>> p, q = torch.zeros(500, 1), torch.ones(500, 1)
        >>> found = wasserstein_lower_bound(p, q, steps=100)
        >>> bool(0.95 < found.value <= 1)
        True

    Reference: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", 2019; Li et al.,
    BCOP, 2019, sections 2.4 and 5.3.
    """
    check_samples(samples_p, samples_q)
    train_p, test_p = split(samples_p, held_out, seed)
    train_q, test_q = split(samples_q, held_out, seed + 1)
    if critic is None:
        critic = default_critic(samples_p, seed)
    lipschitz_bound(export(critic))  # refuse before the training what nothing is known of
    training = CriticTraining(critic, train_p, train_q, steps=steps, batch=batch, lr=lr, seed=seed)
    training.run(progress=progress)
    found = judge(critic, test_p, test_q, confidence=confidence, diameter=diameter)
    return replace(found, history=training.history)


def split(samples: Tensor, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Shuffle samples into those to train on and those to hold out.

    Args:
        samples: ``(n, ...)``.
        held_out: share to hold out, rounded.
        seed: of the shuffle.

    Raises:
        UsageError: one of the two parts has fewer than two samples.
    """
    count = round(len(samples) * held_out) if 0 < held_out < 1 else 0
    if min(count, len(samples) - count) < 2:
        raise UsageError(
            f"held_out={held_out} of {len(samples)} samples does not leave two to train on and two "
            "to judge by"
        )
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    order = order.to(samples.device)
    return samples[order[count:]], samples[order[:count]]


def default_critic(samples: Tensor, seed: int) -> nn.Module:
    """A ``dense_critic``: on MNIST it finds more than a ``dcgan_critic``, in less time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dense_critic(math.prod(samples.shape[1:])).to(samples)


@torch.no_grad()
def judge(
    critic: nn.Module,
    p: Tensor,
    q: Tensor,
    *,
    confidence: float = 0.95,
    diameter: float | None = None,
) -> LowerBound:
    """What a critic proves on samples that it was not trained on.

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
    rounding = None if each is None else 2 * each + _error_of_means(scores_p, scores_q)
    if diameter is None:
        ends = student(scores_p, scores_q, confidence, score_error=each or 0.0)
    else:
        _refuse_beyond(diameter, p, q)
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
    """Of each sample, over the constant."""
    with full_precision(samples.device):
        parts = [critic(part.double()) for part in samples.split(_BATCH)]
        if any(scores.numel() != len(scores) for scores in parts):
            raise UsageError(f"a critic has one output per sample, not {tuple(parts[0].shape[1:])}")
        scores = torch.cat([part.flatten() for part in parts])
        if len(scores) != len(samples):
            raise UsageError(f"a critic has one output per sample: {len(scores)}, {len(samples)}")
        refuse_mixed(critic, samples.double(), scores)
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
    """How far a score is from the exact one; None if a layer's rounding is not known."""
    reach = max(float(x.double().flatten(1).norm(dim=1).max()) for x in samples) * (1 + 1e-9)
    try:
        forward = float(forward_error(critic, tuple(samples[0].shape[1:]), reach))
    except UnboundedModuleError:
        return None
    largest = max(float(s.abs().max()) for s in scores)
    return forward / (constant or 1.0) * (1 + 4 * UNIT) + 2 * UNIT * largest


def _error_of_means(*scores: Tensor) -> float:
    """Of the difference of the means, computed from given scores."""
    return sum((len(s) + 8) * 2 * UNIT * float(s.abs().max()) for s in scores)


def _refuse_beyond(diameter: float, p: Tensor, q: Tensor) -> None:
    """No two samples that are looked at may be further apart; all pairs are too many."""
    furthest = max(float((s - p[:1]).double().flatten(1).norm(dim=1).max()) for s in (p, q))
    if furthest > diameter * (1 + 1e-6):
        raise UsageError(
            f"two samples are {furthest:.6g} apart, more than the diameter of {diameter:.6g}: "
            "sqrt(d) for d pixels in [0, 1]"
        )
