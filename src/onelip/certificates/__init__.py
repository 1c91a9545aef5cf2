"""From logits and a proved bound to certified radii."""

from onelip.certificates.certificate import Certificate
from onelip.certificates.margin import certify
from onelip.certificates.precision import full_precision

__all__ = ["Certificate", "certify", "full_precision"]
