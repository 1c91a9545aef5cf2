"""From logits and a proved bound to certified radii."""

from onelip.certificates.certificate import Certificate
from onelip.certificates.margin import certify

__all__ = ["Certificate", "certify"]
