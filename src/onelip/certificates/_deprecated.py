"""Deprecated names of the last release: they still work, warn, and go with the next release."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from onelip.certificates._radius_proof import RadiusProof
from onelip.certificates.head_curvature.proof import CurvatureProof
from onelip.certificates.methods import radius_proof
from onelip.chains import Shape
from onelip.errors import renamed

Prover = Callable[[nn.Module, Shape], RadiusProof]


def _prover(name: str) -> Prover:
    """Wrap a named method as a function of a model and the shape of its input."""

    def prove(model: nn.Module, input_shape: Shape) -> RadiusProof:
        return radius_proof(name, model, input_shape)

    return prove


_PROVERS: Mapping[str, Prover] = MappingProxyType(
    {name: _prover(name) for name in ("product", "liplt", "curvature")}
)

RENAMED: dict[str, tuple[Any, str]] = {
    "Constants": (RadiusProof, "RadiusProof"),
    "CurvatureConstants": (CurvatureProof, "CurvatureProof"),
    "PROVERS": (_PROVERS, "METHODS"),
    "Prover": (Prover, "CertificateMethod"),
    "curvature_constants": (_PROVERS["curvature"], "HeadCurvature()"),
    "liplt_constants": (_PROVERS["liplt"], "radius_proof('liplt', ...)"),
    "product_constants": (_PROVERS["product"], "radius_proof('product', ...)"),
}
"""Old name to its replacement, and to the new name that the warning prints."""


def __getattr__(name: str) -> Any:
    """Return the replacement of an old name, with a warning."""
    if name not in RENAMED:
        raise AttributeError(f"module 'onelip.certificates' has no attribute {name!r}")
    found, new = RENAMED[name]
    renamed(f"onelip.certificates.{name}", f"onelip.certificates.{new}")
    return found
