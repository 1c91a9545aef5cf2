"""Numbers of a run by name: ``clean``, ``certified@36/255``, ``apgd-t@0.5``, ``held-out-clean``."""

import math
import statistics
from collections.abc import Iterable
from typing import cast

from onelip.errors import UsageError
from onelip.experiments.classification.text import format_eps
from onelip.experiments.record_schema import Accuracy, Attack, Averages, TrainingRecord

Key = tuple[str, float]
"""Kind of a number, and its radius, 0 without one: ``("certified", 36 / 255)``."""

ATTACKED = "attacked"
"""Accuracy under the attacks of one record: of the most images, and of those the most attacks."""


def run_numbers(content: TrainingRecord) -> tuple[dict[Key, float], dict[str, str]]:
    """Return numbers by kind and radius, and the attack record that each attack's are from.

    Shares are in per cent of the test set, or, from ``held-out-`` on, of the held-out images.
    """
    numbers: dict[Key, float] = {}
    attacked: dict[str, str] = {}
    if epochs := content["train"]["epochs"] if "train" in content else []:
        numbers["seconds_per_epoch", 0.0] = statistics.median(epoch["seconds"] for epoch in epochs)
    if "held_out" in content:
        numbers |= _shares("held-out-", content["held_out"])
    if "certify" in content:
        numbers |= _shares("", content["certify"]["test"])
        if "held_out" in content["certify"]:
            numbers |= _shares("held-out-", content["certify"]["held_out"])
    if "tightness" in content:
        numbers["exact", 0.0] = 100 * content["tightness"]["exact"]
    for method, averages in cast(dict[str, Averages], content.get("constants", {})).items():
        for of, value in averages.items():
            numbers[f"{method}_{of}", 0.0] = cast(float, value)
    records = content.get("attack", {})
    for key, record in sorted(records.items(), key=_closest):
        for name in key.partition(" on ")[0].split(", "):
            if attacked.setdefault(name, key) == key:
                rows = record["eps"]
                numbers |= {(name, row["eps"]): 100 * row["attacked"] for row in rows}
    if records:
        key, record = max(records.items(), key=_fullest)
        attacked[ATTACKED] = key
        numbers |= {(ATTACKED, row["eps"]): 100 * row["attacked"] for row in record["eps"]}
    return numbers, attacked


def key_text(key: Key) -> str:
    """Write a key as commands take it.

    Example:
        >>> key_text(("certified", 36 / 255)), key_text(("clean", 0.0))
        ('certified@36/255', 'clean')
    """
    kind, radius = key
    return f"{kind}@{format_eps(radius)}" if radius else kind


def in_order(keys: Iterable[Key]) -> list[Key]:
    """Sort keys: clean, certified, attacked, then others; radii upwards."""
    first = ("clean", "certified", ATTACKED)
    return sorted(keys, key=lambda k: (first.index(k[0]) if k[0] in first else len(first), *k))


def find_key(text: str, known: Iterable[Key]) -> Key:
    """Find the number that a text names; a radius counts up to its digits, from three on.

    Raises:
        UsageError: there is none, or more than one.

    Example:
        >>> find_key("certified@0.141", [("certified", 36 / 255), ("certified", 1.0)])
        ('certified', 0.1411764705882353)
    """
    kind, at, written = text.strip().partition("@")
    known = list(known)
    of_kind = [key for key in known if key[0] == kind and bool(key[1]) == bool(at)]
    radius = _number(written) if at else 0.0
    exact = [key for key in of_kind if math.isclose(key[1], radius, rel_tol=1e-9)]
    digits = len(written.partition(".")[2])
    near = [key for key in of_kind if digits >= 3 and round(key[1], digits) == radius]
    found = exact or near
    if len(found) != 1:
        names = ", ".join(map(key_text, known)) or "none"
        problem = "more than one number" if found else "no number"
        raise UsageError(f"{problem} {text!r}; known: {names}")
    return found[0]


def _number(text: str) -> float:
    """Parse ``36/255`` or ``0.5``; NaN if it is neither."""
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or "1")
    except (ValueError, ZeroDivisionError):
        return math.nan


def _shares(prefix: str, accuracy: Accuracy) -> dict[Key, float]:
    certified = {
        (f"{prefix}certified", float(eps)): 100 * share
        for eps, share in accuracy["certified"].items()
    }
    return {(f"{prefix}clean", 0.0): 100 * accuracy["clean"], **certified}


def _closest(attack: tuple[str, Attack]) -> tuple[int, int]:
    """Sort key of attack records: fewest attacks first, of them the one of the most images."""
    return len(attack[1]["attacks"]), -attack[1]["samples"]


def _fullest(attack: tuple[str, Attack]) -> tuple[int, int]:
    return attack[1]["samples"], len(attack[1]["attacks"])
