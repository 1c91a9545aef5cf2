"""Neural networks whose Lipschitz constant is proved."""

from onelip import bounds, errors, estimates, layers, testing
from onelip.certificates import Certificate, certify
from onelip.export import export
from onelip.lipschitz import LipschitzModule, lipschitz_bound

__all__ = [
    "Certificate",
    "LipschitzModule",
    "bounds",
    "certify",
    "errors",
    "estimates",
    "export",
    "layers",
    "lipschitz_bound",
    "testing",
]
