"""What a table needs of the ``metrics.json`` of a run, and how the run differs from its recipe."""

import inspect
import json
import statistics
from dataclasses import MISSING, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

from onelip.errors import UsageError
from onelip.losses import LOSSES
from onelip.models import MODELS
from onelip.recipes import RECIPES, Recipe

_ATTACK = ("attack_samples", "attack_steps", "attack_restarts")
_UNTRAINED = ("name", "about", "seed", "threads", "eps", *_ATTACK)  # do not change what is trained

CONSTANTS = tuple(
    f"{method}_{of}" for method in ("naive", "liplt") for of in ("pairwise", "sum", "sqrt2")
)
"""Averages over all pairs of classes i, j of bounds L_ij, L_i + L_j and sqrt(2) L, per method."""

DISTANCE = "wasserstein"
"""Lower bound of a Wasserstein-1 distance."""

_IRRELEVANT = ("seed", "threads", "exact", "data")  # do not change what a critic is trained for

Key = tuple[str, float]
"""What a number is, and at which radius: ``("certified", 36 / 255)``."""


@dataclass(frozen=True)
class StoredRun:
    """A stored run.

    Attributes:
        file: where it is stored.
        recipe: name of its recipe; ``transport-LAYER-ACTIVATION`` of a run of ``onelip transport``.
        seed: its seed.
        numbers: per cent of the test set, the median seconds of an epoch, averages of constants.
        epochs: how many, and of how many where that differs.
        minutes: of training.
        bounds: proved ones, of the network and of what is in front of its head, if it has one; None
            if it is not certified.
        notes: what else a reader of its numbers has to know.
        attacked: for each attack, the record that its numbers are from.
        kind: equal for runs that differ only in their seed.
    """

    file: Path
    recipe: str
    seed: int
    numbers: dict[Key, float]
    epochs: str
    minutes: float
    bounds: tuple[float, float | None] | None
    notes: list[str]
    attacked: dict[str, str]
    kind: str


def read_run(path: Path) -> StoredRun:
    """A run from its ``metrics.json``.

    Raises:
        UsageError: the file holds no run.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return (_transport if "transport" in content else _run)(path, content)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path} is no metrics.json of a run ({reason})") from None


def _run(path: Path, content: dict[str, Any]) -> StoredRun:
    recipe, train, certify = content["recipe"], content["train"], content.get("certify")
    name, settings, epochs = str(recipe["name"]), _settings(recipe), _epochs(recipe, train)
    data = (certify or {}).get("data") or content["data"]["note"]
    proof = f"{certify['method']}, level {certify['level']}" if certify else "not certified"
    notes = [*_changes(name, settings), str(data), proof, str(content["device"])]
    notes = [note for note in notes if note]
    numbers, attacked = _numbers(content)
    return StoredRun(
        file=path,
        recipe=name,
        seed=int(recipe["seed"]),
        numbers=numbers,
        epochs=epochs,
        minutes=_finite(train["seconds"]) / 60,
        bounds=(_finite(certify["bound"]), _finite(certify["body_bound"])) if certify else None,
        notes=notes,
        attacked=attacked,
        kind=json.dumps([name, settings, epochs, notes], sort_keys=True),
    )


def _transport(path: Path, content: dict[str, Any]) -> StoredRun:
    """A run of ``onelip transport``; what was compared, and how, are its notes."""
    settings, critic, train = content["transport"], content["critic"], content["train"]
    result, samples = content["result"], content["samples"]
    compared = " against ".join(str(samples[place]["name"]) for place in "pq")
    widths = ", ".join(str(width) for width in critic["widths"])
    notes = [
        compared,
        f"{critic['kind']} {widths}, batch {settings['batch']}, lr {settings['lr']}",
        f"{' and '.join(str(count) for count in result['samples'])} held out",
        *sorted({str(samples[place]["note"]) for place in "pq"} - {""}),
        f"level {'real' if result['rounding'] is None else 'float'}",
        str(content["device"]),
    ]
    kind = {name: value for name, value in settings.items() if name not in _IRRELEVANT}
    return StoredRun(
        file=path,
        recipe=f"transport-{settings['task'] or '-'.join([critic['layer'], critic['activation']])}",
        seed=int(settings["seed"]),
        numbers={(DISTANCE, 0.0): _finite(result["value"])},
        epochs=f"{int(train['steps'])} steps",
        minutes=_finite(train["seconds"]) / 60,
        bounds=(_finite(result["constant"]), None),
        notes=notes,
        attacked={},
        kind=json.dumps([kind, critic, notes], sort_keys=True),
    )


def _numbers(content: dict[str, Any]) -> tuple[dict[Key, float], dict[str, str]]:
    """Numbers by what they are, and the attack records that some are from."""
    numbers: dict[Key, float] = {}
    attacked: dict[str, str] = {}
    if epochs := content["train"]["epochs"]:
        seconds = statistics.median(_finite(epoch["seconds"]) for epoch in epochs)
        numbers["seconds_per_epoch", 0.0] = seconds
    if "certify" in content:
        test = content["certify"]["test"]
        numbers["clean", 0.0] = _percent(test["clean"])
        numbers |= {("certified", float(e)): _percent(v) for e, v in test["certified"].items()}
    if "tightness" in content:
        numbers["exact", 0.0] = _percent(content["tightness"]["exact"])
    constants = content.get("constants", {})
    for name in CONSTANTS:
        method, _, of = name.partition("_")
        if of in constants.get(method, {}):
            numbers[name, 0.0] = _finite(constants[method][of])
    for key, record in sorted(content.get("attack", {}).items(), key=_closest):
        for name in key.partition(" on ")[0].split(", "):
            if attacked.setdefault(name, key) == key:
                rows = record["eps"]
                numbers |= {(name, float(r["eps"])): _percent(r["attacked"]) for r in rows}
    return numbers, attacked


def _closest(attack: tuple[str, dict[str, Any]]) -> tuple[int, int]:
    """Records of the fewest attacks first, of them the one of the most images."""
    return len(attack[1]["attacks"]), -attack[1]["samples"]


def _percent(share: float) -> float:
    if not 0 <= share <= 1:
        raise ValueError(f"{share} is no share of the test set")
    return 100 * share


def _finite(number: float) -> float:
    if not isfinite(number):
        raise ValueError(f"{number} is not finite")
    return float(number)


def _epochs(recipe: dict[str, Any], train: dict[str, Any]) -> str:
    done, planned = len(train["epochs"]), recipe["epochs"]
    text = f"{done} epochs" if train["complete"] else f"stopped after {done} of {planned} epochs"
    published = RECIPES.get(recipe["name"])
    if published is None or published.epochs == planned:
        return text
    return f"{text} (recipe: {published.epochs})"


def _changes(name: str, settings: dict[str, Any]) -> list[str]:
    """Settings of a run that are not its recipe's, but for the epochs."""
    if name not in RECIPES:
        return []
    recipe = RECIPES[name]
    published = _settings({field.name: getattr(recipe, field.name) for field in fields(recipe)})
    changed = [k for k in settings if k != "epochs" and settings[k] != published.get(k)]
    return [f"{key} {settings[key]}" for key in changed]


def _settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """Flat settings of what is trained; those left out have their defaults."""
    defaults = {f.name: f.default for f in fields(Recipe) if f.default is not MISSING}
    settings = {k: v for k, v in {**defaults, **recipe}.items() if k not in _UNTRAINED}
    for part, known, choice in (("network", MODELS, "model"), ("objective", LOSSES, "loss")):
        made_by: Any = known.get(settings[choice])
        given = {**_defaults(made_by), **settings.pop(part, {})}
        settings |= {f"{part}.{name}": value for name, value in given.items()}
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # tuples become lists
    return plain


def _defaults(made_by: Any) -> dict[str, Any]:
    """Keyword arguments of a model or a loss."""
    parameters = inspect.signature(made_by).parameters.values() if made_by else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
