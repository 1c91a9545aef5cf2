"""Record of a proved lower bound of a Wasserstein distance."""

from onelip.experiments.record_schema import Interval
from onelip.transport import LowerBound


def lower_bound_record(found: LowerBound) -> Interval:
    """Return the numbers of a bound; its critic and scores are stored elsewhere."""
    return {
        "value": found.value,
        "lower": found.lower,
        "upper": found.upper,
        "confidence": found.confidence,
        "interval": found.interval,
        "constant": found.constant,
        "rounding": found.rounding,
        "samples": list(found.samples),
    }
