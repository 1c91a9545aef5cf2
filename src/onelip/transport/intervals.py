r"""Confidence intervals of the difference of two means, from independent samples.

``student`` (Welch) is what everybody uses: right as the samples grow. ``bernstein`` holds for every
sample size, for scores in a known range D (Maurer, Pontil, 2009, theorem 4): with probability
:math:`1 - \delta` a mean lies above its estimate by at most

.. math:: \sqrt{2 V \ln(2 / \delta) / n} + 7 D \ln(2 / \delta) / (3 (n - 1)),

V the sample variance; the same below. A 1-Lipschitz critic has such a range: the diameter of the
set in which samples lie, such as :math:`\sqrt d` for images of d pixels in [0, 1].
"""

import math

from torch import Tensor

from onelip.errors import UsageError, missing_extra

Interval = tuple[float, float]


def student(p: Tensor, q: Tensor, confidence: float) -> Interval:
    """Two-sided interval of ``E p - E q`` by Welch's t; exact in the limit only.

    Args:
        p: scores ``(n,)``, float64.
        q: scores ``(m,)``.
        confidence: such as 0.95.

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
    parts = [float(scores.var()) / len(scores) for scores in (p, q)]
    if not sum(parts):
        return gap, gap
    shares = [part**2 / (len(s) - 1) for part, s in zip(parts, (p, q), strict=True)]
    freedom = sum(parts) ** 2 / max(sum(shares), math.ulp(0.0))
    width = float(stats.t.ppf((1 + confidence) / 2, freedom)) * math.sqrt(sum(parts))
    return gap - width, gap + width


def bernstein(p: Tensor, q: Tensor, confidence: float, diameter: float) -> Interval:
    """Two-sided interval of ``E p - E q`` that holds for every sample size.

    Args:
        p: scores ``(n,)``, float64.
        q: scores ``(m,)``.
        confidence: such as 0.95.
        diameter: length of an interval in which all scores lie.

    Raises:
        UsageError: the scores are further apart than the diameter.

    Reference: Maurer, Pontil, "Empirical Bernstein bounds and sample variance penalization", 2009.
    """
    _check(p, q, confidence)
    spread = max(float(s.max() - s.min()) for s in (p, q))
    if not spread <= diameter < math.inf:
        raise UsageError(
            f"scores of a 1-Lipschitz critic lie {spread:.3g} apart, so the samples are not within "
            f"a diameter of {diameter:.3g}: sqrt(d) for d pixels in [0, 1]"
        )
    log = math.log(8 / (1 - confidence))  # two means, two sides, 2 / delta each
    width = sum(
        math.sqrt(2 * float(s.var()) * log / len(s)) + 7 * diameter * log / (3 * (len(s) - 1))
        for s in (p, q)
    )
    gap = float(p.mean() - q.mean())
    return gap - width, gap + width


def _check(p: Tensor, q: Tensor, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is a probability such as 0.95, got {confidence}")
    if min(len(p), len(q)) < 2:
        raise UsageError("an interval needs two held-out samples of each distribution or more")
