"""Training losses that increase the margin, and so certified radii."""

from onelip.losses.annealing import LogitAnnealing
from onelip.losses.certificate import CertificateRegularized
from onelip.losses.cosine import Cosine
from onelip.losses.crc import CRC
from onelip.losses.crm import CRM
from onelip.losses.emma import EMMA
from onelip.losses.generalized import GeneralizedCrossEntropy
from onelip.losses.gloro import GloRo
from onelip.losses.head import HeadLoss
from onelip.losses.kantorovich import HKR, KR, HingeMargin
from onelip.losses.kantorovich_multiclass import (
    BinaryCrossEntropy,
    LseHKR,
    RunnerUpHinge,
    SoftHKR,
)
from onelip.losses.lipschitz_margin import LipschitzMargin
from onelip.losses.margin import MarginHinge, OffsetCrossEntropy
from onelip.losses.radius import RadiusLoss

LOSSES = {
    "hinge": MarginHinge,
    "cross-entropy": OffsetCrossEntropy,
    "annealing": LogitAnnealing,
    "binary-cross-entropy": BinaryCrossEntropy,
    "certificate": CertificateRegularized,
    "cosine": Cosine,
    "emma": EMMA,
    "generalized": GeneralizedCrossEntropy,
    "crc": CRC,
    "crm": CRM,
    "gloro": GloRo,
    "hinge-margin": HingeMargin,
    "hkr": HKR,
    "kr": KR,
    "lipschitz-margin": LipschitzMargin,
    "lse-hkr": LseHKR,
    "runner-up-hinge": RunnerUpHinge,
    "soft-hkr": SoftHKR,
}
"""Every loss by name, for recipes and the command line."""

__all__ = [
    "CRC",
    "CRM",
    "EMMA",
    "HKR",
    "KR",
    "LOSSES",
    "BinaryCrossEntropy",
    "CertificateRegularized",
    "Cosine",
    "GeneralizedCrossEntropy",
    "GloRo",
    "HeadLoss",
    "HingeMargin",
    "LipschitzMargin",
    "LogitAnnealing",
    "LseHKR",
    "MarginHinge",
    "OffsetCrossEntropy",
    "RadiusLoss",
    "RunnerUpHinge",
    "SoftHKR",
]
