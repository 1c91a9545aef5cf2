"""Neural networks whose Lipschitz constant is proved."""

from onelip import versions  # isort: skip  (warns before anything else does)
from onelip import bounds, certificates, errors, estimates, flows, layers, norms, reading, testing
from onelip._export import export
from onelip._save import save
from onelip.bounds import lipschitz_bound
from onelip.certificates import Certificate, certify
from onelip.lipschitz import LipschitzModule

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
