"""Networks and certificates as bundles that a separate program checks (``onelip.checker``)."""

from onelip.proofs.bundle import prove

__all__ = ["prove"]
