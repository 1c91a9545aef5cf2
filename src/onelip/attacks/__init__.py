"""Attacks in the l2 norm: search for adversarial examples, and one judge of their success."""

from onelip.attacks._judge import AttackResult, judge
from onelip.attacks.apgd import APGD
from onelip.attacks.evaluate import Attack, attack, attack_radii
from onelip.attacks.foolbox_attacks import FGM, FMN, PGD, Boundary, Pointwise
from onelip.attacks.registry import ATTACKS, DEFAULT_ATTACKS
from onelip.attacks.square import Square
from onelip.attacks.unit_box import UnitBox

__all__ = [
    "APGD",
    "ATTACKS",
    "DEFAULT_ATTACKS",
    "FGM",
    "FMN",
    "PGD",
    "Attack",
    "AttackResult",
    "Boundary",
    "Pointwise",
    "Square",
    "UnitBox",
    "attack",
    "attack_radii",
    "judge",
]
