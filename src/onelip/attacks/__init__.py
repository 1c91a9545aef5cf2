"""Attacks in the l2 norm: what looks for examples, and what judges them."""

from onelip.attacks.evaluate import Attack, attack, attack_radii
from onelip.attacks.foolbox_attacks import ATTACKS, FGM, PGD, Boundary, Pointwise
from onelip.attacks.judge import AttackResult, judge

__all__ = [
    "ATTACKS",
    "FGM",
    "PGD",
    "Attack",
    "AttackResult",
    "Boundary",
    "Pointwise",
    "attack",
    "attack_radii",
    "judge",
]
