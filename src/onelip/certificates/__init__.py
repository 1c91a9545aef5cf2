"""From logits and a proved bound to certified radii."""

from onelip.certificates._certify import certify
from onelip.certificates.certificate import Certificate
from onelip.certificates.head_curvature.proof import (
    CurvatureConstants,
    curvature_constants,
    mlp_head,
)
from onelip.certificates.head_curvature.radii import HeadRadii
from onelip.certificates.precision import full_precision
from onelip.certificates.radius_proof import (
    Constants,
    Prover,
    liplt_constants,
    product_constants,
)

PROVERS: dict[str, Prover] = {
    "product": product_constants,
    "liplt": liplt_constants,
    "curvature": curvature_constants,
}
"""By the name that recipes use."""

__all__ = [
    "PROVERS",
    "Certificate",
    "Constants",
    "CurvatureConstants",
    "HeadRadii",
    "Prover",
    "certify",
    "curvature_constants",
    "full_precision",
    "liplt_constants",
    "mlp_head",
    "product_constants",
]
