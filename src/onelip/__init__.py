"""Neural networks whose Lipschitz constant is proved."""

from onelip import versions  # isort: skip  (warns before anything else does)
from onelip import bounds, certificates, errors, estimates, flows, layers, norms, reading, testing
from onelip.certificates import Certificate, certify
from onelip.export import export
from onelip.lipschitz import LipschitzModule, lipschitz_bound
from onelip.saving import save

__all__ = [
    "Certificate",
    "LipschitzModule",
    "bounds",
    "certificates",
    "certify",
    "errors",
    "estimates",
    "export",
    "flows",
    "layers",
    "lipschitz_bound",
    "norms",
    "reading",
    "save",
    "testing",
    "versions",
]
