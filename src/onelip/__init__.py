"""Neural networks whose Lipschitz constant is proved."""

from onelip import errors, estimates, layers, norms, testing
from onelip.certificates import Certificate, certify
from onelip.export import export
from onelip.lipschitz import LipschitzModule, lipschitz_bound

__all__ = [
    "Certificate",
    "LipschitzModule",
    "certify",
    "errors",
    "estimates",
    "export",
    "layers",
    "lipschitz_bound",
    "norms",
    "testing",
]
