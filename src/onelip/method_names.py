"""Names of the ways to prove, as data that settings know without importing the methods."""

BOUND_METHODS = (
    "product",
    "eclipse-fast",
    "eclipse",
    "lipsdp",
    "exact",
    "liplt",
    "lipsdp-layer",
    "local",
    "best",
)
"""Names in ``onelip.bounds.METHODS``."""

CERTIFICATE_METHODS = (*BOUND_METHODS, "curvature")
"""Names in ``onelip.certificates.METHODS``."""

TRAINING_CONSTANTS = ("product", "liplt", "head")
"""Bound methods with an estimate for training, and the head alone."""

AVERAGES = ("flip", "cross", "shifts", "wrapped-shifts")
"""Names of the transforms that ``onelip.models.averaged`` takes a mean over."""
