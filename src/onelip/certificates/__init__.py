"""Certified radii from logits and proved bounds."""

from onelip.certificates._certify import certify
from onelip.certificates._deprecated import __getattr__ as __getattr__
from onelip.certificates._interval import Interval, interval
from onelip.certificates._radius_proof import CertificateMethod, Proved, RadiusProof
from onelip.certificates.certificate import Certificate
from onelip.certificates.head_curvature.proof import CurvatureProof, HeadCurvature, mlp_head
from onelip.certificates.head_curvature.radii import HeadRadii
from onelip.certificates.methods import METHODS, LocalProof, radius_proof
from onelip.certificates.precision import full_precision
from onelip.certificates.with_radius import Basis, WithRadius, with_radius

__all__ = [
    "METHODS",
    "Basis",
    "Certificate",
    "CertificateMethod",
    "CurvatureProof",
    "HeadCurvature",
    "HeadRadii",
    "Interval",
    "LocalProof",
    "Proved",
    "RadiusProof",
    "WithRadius",
    "certify",
    "full_precision",
    "interval",
    "mlp_head",
    "radius_proof",
    "with_radius",
]
