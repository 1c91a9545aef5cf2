"""Shares of samples as per cent, rounded downwards in exact arithmetic."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Share:
    """Share of the samples of one seed or of several.

    Attributes:
        mean: over all samples of all seeds.
        spread: sample standard deviation over seeds, of two or more.
    """

    mean: Fraction
    spread: float | None

    @property
    def text(self) -> str:
        """Mean in per cent, rounded downwards."""
        return percent(self.mean)

    @property
    def spread_text(self) -> str:
        """Deviation in per cent as ``± 0.42``, empty for one seed."""
        return "" if self.spread is None else f"± {100 * self.spread:.2f}"


def share(counts: Sequence[tuple[Fraction, int]]) -> Share:
    """Return the share over seeds.

    Args:
        counts: for each seed the samples with a property, and all samples.
    """
    total = sum(count for _, count in counts)
    mean = sum((of_seed for of_seed, _ in counts), Fraction(0)) / total if total else Fraction(0)
    each = [float(of_seed / count) for of_seed, count in counts if count]
    return Share(mean, statistics.stdev(each) if len(each) > 1 else None)


def counted(value: float, samples: int) -> Fraction:
    """Return how many samples a stored share is, exactly where it is one of whole samples.

    Example:
        >>> counted(0.57, 100), counted(1 / 3, 450)
        (Fraction(57, 1), Fraction(150, 1))
    """
    whole = round(value * samples)
    exact = samples and whole / samples == value
    return Fraction(whole) if exact else Fraction(value) * samples


def percent(value: Fraction) -> str:
    """Write a share in per cent, rounded downwards to two decimal places.

    Example:
        >>> percent(Fraction(2, 3)), percent(Fraction(57, 100))
        ('66.66', '57.00')
    """
    hundredths = int(10000 * value)
    return f"{hundredths // 100}.{hundredths % 100:02d}"
