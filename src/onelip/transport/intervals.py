r"""Confidence intervals of the difference of two means, from independent samples.

``student`` (Welch) is the usual one, exact in the limit of many samples. ``bernstein`` holds for
every sample size, for scores in a known range D (Maurer, Pontil, 2009, theorem 4): with probability
:math:`1 - \delta` a mean lies above its estimate by at most

.. math:: \sqrt{2 V \ln(2 / \delta) / n} + 7 D \ln(2 / \delta) / (3 (n - 1)),

V the sample variance; the same below. A 1-Lipschitz critic has such a range: the diameter of the
set in which samples lie, such as :math:`\sqrt d` for images of d pixels in [0, 1].
"""

import math

from torch import Tensor

from onelip.errors import NonFiniteError, UsageError, missing_extra

Interval = tuple[float, float]


def student(p: Tensor, q: Tensor, confidence: float, *, score_error: float = 0.0) -> Interval:
    """Two-sided interval of ``E p - E q`` by Welch's t; exact in the limit only.

    If all scores drawn are equal the width is 0, even if others are possible.

    Args:
        p: scores ``(n,)``, float64.
        q: scores ``(m,)``.
        confidence: such as 0.95.
        score_error: error of each score; moves the standard error of a mean by at most
            ``score_error / sqrt(n - 1)``.

    Example:
        >>> import torch
        >>> low, high = student(torch.tensor([0.9, 1.1, 1.0]), torch.tensor([0.0, 0.1]), 0.95)
        >>> low < 0.95 < high
        True
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise missing_extra("scipy", "transport") from error
    _check(p, q, confidence)
    gap = float(p.mean() - q.mean())
    errors = [float(scores.std()) / math.sqrt(len(scores)) for scores in (p, q)]
    # Relative to the larger one, so that the fourth powers do not underflow.
    largest = max(errors) or 1.0
    parts = [(error / largest) ** 2 for error in errors]
    shares = [part**2 / (len(s) - 1) for part, s in zip(parts, (p, q), strict=True)]
    freedom = sum(parts) ** 2 / sum(shares) if any(parts) else min(len(p), len(q)) - 1
    spread = math.sqrt(sum(1 / (len(s) - 1) for s in (p, q)))
    width = math.hypot(*errors) + score_error * spread
    width *= float(stats.t.ppf((1 + confidence) / 2, freedom))
    return gap - width, gap + width


def bernstein(
    p: Tensor, q: Tensor, confidence: float, diameter: float, *, score_error: float = 0.0
) -> Interval:
    """Two-sided interval of ``E p - E q`` that holds for every sample size.

    Args:
        p: scores ``(n,)``, float64.
        q: scores ``(m,)``.
        confidence: such as 0.95.
        diameter: length of an interval in which all scores lie.
        score_error: error of each score.

    Raises:
        UsageError: the scores are further apart than the diameter.

    Reference: Maurer, Pontil, "Empirical Bernstein bounds and sample variance penalization", 2009.
    """
    _check(p, q, confidence)
    spread = max(float(s.max() - s.min()) for s in (p, q))
    if not spread - 2 * score_error <= diameter < math.inf:
        raise UsageError(
            f"scores of a 1-Lipschitz critic lie {spread:.3g} apart, so the samples are not within "
            f"a diameter of {diameter:.3g}: sqrt(d) for d pixels in [0, 1]"
        )
    # Errors of scores move their standard deviation by sqrt(n / (n - 1)) score_error at most.
    log = math.log(8 / (1 - confidence))  # 2 / delta, delta split over 2 means, 2 sides
    width = sum(
        math.sqrt(2 * log / len(s)) * float(s.std())
        + math.sqrt(2 * log / (len(s) - 1)) * score_error
        + 7 * diameter * log / (3 * (len(s) - 1))
        for s in (p, q)
    )
    gap = float(p.mean() - q.mean())
    return gap - width, gap + width


def _check(p: Tensor, q: Tensor, confidence: float) -> None:
    """Refuse confidences outside (0, 1), scores that are not finite, and fewer than two."""
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is a probability such as 0.95, got {confidence}")
    if not (p.isfinite().all() and q.isfinite().all()):
        raise NonFiniteError("scores are infinite or NaN: the critic has no such constant")
    if min(len(p), len(q)) < 2:
        raise UsageError("an interval needs two held-out samples of each distribution or more")
