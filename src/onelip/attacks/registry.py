"""Attacks by name, as the command line knows them."""

from collections.abc import Callable

from onelip.attacks.apgd import APGD
from onelip.attacks.evaluate import Attack
from onelip.attacks.foolbox_attacks import FGM, FMN, PGD, Boundary, Pointwise
from onelip.attacks.square import Square

DEFAULT_ATTACKS = ("fmn", "apgd-t")
"""Default attacks, strong and cheap: FMN once for all radii, then APGD on three targets."""

ATTACKS: dict[str, Callable[[int, int], tuple[Attack, ...]]] = {
    "fmn": lambda steps, _: (FMN(steps),),
    "apgd-t": lambda steps, restarts: (APGD(steps=steps, restarts=restarts),),
    "apgd-ce": lambda steps, restarts: (APGD("cross-entropy", 0, steps, restarts),),
    "square": lambda *_: (Square(),),
    "auto": lambda *_: (FMN(100), APGD("cross-entropy", 0, 100), APGD("dlr", 9, 100), Square()),
    "pgd": lambda steps, restarts: (
        PGD(steps, restarts, "margin"),
        PGD(steps, restarts, "cross-entropy"),
    ),
    "fgm": lambda *_: (FGM(),),
    "boundary": lambda *_: (Boundary(),),
    "pointwise": lambda *_: (Pointwise(),),
}
"""Attacks by name: functions of steps and restarts to the attacks that run in turn.

``auto`` is of AutoAttack's class (Croce and Hein, 2020): its steps, targets and queries are fixed.
"""
