"""From logits and a proved bound to certified radii."""

from onelip.certificates.certificate import Certificate
from onelip.certificates.constants import (
    PROVERS,
    Constants,
    Prover,
    liplt_constants,
    product_constants,
)
from onelip.certificates.margin import certify
from onelip.certificates.precision import full_precision

__all__ = [
    "PROVERS",
    "Certificate",
    "Constants",
    "Prover",
    "certify",
    "full_precision",
    "liplt_constants",
    "product_constants",
]
