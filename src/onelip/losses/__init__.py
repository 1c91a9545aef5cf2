"""Losses that ask for a margin."""

from onelip.losses.annealing import LogitAnnealing
from onelip.losses.certificate import CertificateRegularized
from onelip.losses.emma import EMMA
from onelip.losses.generalized import GeneralizedCrossEntropy
from onelip.losses.margin import MarginHinge, OffsetCrossEntropy

LOSSES = {
    "hinge": MarginHinge,
    "cross-entropy": OffsetCrossEntropy,
    "annealing": LogitAnnealing,
    "certificate": CertificateRegularized,
    "emma": EMMA,
    "generalized": GeneralizedCrossEntropy,
}
"""Every loss by name, for recipes and the command line."""

__all__ = [
    "EMMA",
    "LOSSES",
    "CertificateRegularized",
    "GeneralizedCrossEntropy",
    "LogitAnnealing",
    "MarginHinge",
    "OffsetCrossEntropy",
]
