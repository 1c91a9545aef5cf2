"""Stored runs as a table needs them: numbers, and differences from the recipe."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onelip.errors import UsageError
from onelip.experiments.classification.comparison import flat_settings
from onelip.experiments.classification.numbers import Key, run_numbers
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.recipes import RECIPES
from onelip.experiments.record_schema import (
    Training,
    TrainingRecord,
    TransportRecord,
    checked,
    parsed,
)
from onelip.experiments.transport.settings import TransportSettings

_ATTACK = ("attack_samples", "attack_steps", "attack_restarts")
_UNTRAINED = ("name", "about", "seed", "threads", "eps", *_ATTACK)  # do not change what is trained

CONSTANTS = tuple(
    f"{method}_{of}" for method in ("naive", "liplt") for of in ("pairwise", "sum", "sqrt2")
)
"""Averages over all pairs of classes i, j of bounds L_ij, L_i + L_j and sqrt(2) L, per method."""

DISTANCES = ("wasserstein", "wasserstein_lower")
"""Lower bound of a Wasserstein-1 distance, and the lower end of its interval."""

_IRRELEVANT = ("seed", "threads", "exact", "data")  # do not change what a critic is trained for


@dataclass(frozen=True)
class StoredRun:
    """Stored run.

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
    """Read a run from its ``metrics.json``.

    Raises:
        UsageError: the file holds no run.
    """
    try:
        content = parsed(path)
        if "transport" in content:
            settings = TransportSettings.from_record(content["transport"])
            return _transport(path, checked(content, TransportRecord), settings)
        if "recipe" not in content:
            raise ValueError("it has no entry 'recipe' or 'transport'")
        recipe = Recipe.from_record(content["recipe"])
        return _run(path, checked(content, TrainingRecord), recipe)
    except KeyError as error:
        raise UsageError(f"{path} is no metrics.json of a run: it has no entry {error}") from None
    except ValueError as error:
        raise UsageError(f"{path} is no metrics.json of a run ({error})") from None


def _run(path: Path, content: TrainingRecord, recipe: Recipe) -> StoredRun:
    train, certify = content["train"], content.get("certify")
    settings, epochs = flat_settings(recipe, _UNTRAINED), _epochs(recipe, train)
    data = certify["data"] if certify and certify["data"] else content["data"].get("note", "")
    proof = f"{certify['method']}, level {certify['level']}" if certify else "not certified"
    notes = [*_changes(recipe.name, settings), data, proof, content["device"]]
    notes = [note for note in notes if note]
    numbers, attacked = run_numbers(content)
    return StoredRun(
        file=path,
        recipe=recipe.name,
        seed=recipe.seed,
        numbers=numbers,
        epochs=epochs,
        minutes=train["seconds"] / 60,
        bounds=(certify["bound"], certify["body_bound"]) if certify else None,
        notes=notes,
        attacked=attacked,
        kind=json.dumps([recipe.name, settings, epochs, notes], sort_keys=True),
    )


def _transport(path: Path, content: TransportRecord, settings: TransportSettings) -> StoredRun:
    """Read a run of ``onelip transport``; its notes are the samples and the method."""
    critic, train, result = content["critic"], content["train"], content["result"]
    both = (content["samples"]["p"], content["samples"]["q"])
    widths = ", ".join(str(width) for width in critic["widths"])
    names = critic["layer"], critic["activation"]
    notes = [
        " against ".join(samples["name"] for samples in both),
        f"{critic['kind']} {widths}, batch {settings.batch}, lr {settings.lr}",
        f"{' and '.join(str(count) for count in result['samples'])} held out",
        *sorted({samples["note"] for samples in both} - {""}),
        f"level {'real' if result['rounding'] is None else 'float'}",
        content["device"],
    ]
    kind = {k: v for k, v in dataclasses.asdict(settings).items() if k not in _IRRELEVANT}
    return StoredRun(
        file=path,
        recipe=f"transport-{settings.task or '-'.join(filter(None, names)) or critic['kind']}",
        seed=settings.seed,
        numbers={(DISTANCES[0], 0.0): result["value"], (DISTANCES[1], 0.0): result["lower"]},
        epochs=f"{train['steps']} steps",
        minutes=train["seconds"] / 60,
        bounds=(result["constant"], None),
        notes=notes,
        attacked={},
        kind=json.dumps([kind, critic, notes], sort_keys=True),
    )


def _epochs(recipe: Recipe, train: Training) -> str:
    done, planned = len(train["epochs"]), recipe.epochs
    text = f"{done} epochs" if train["complete"] else f"stopped after {done} of {planned} epochs"
    published = RECIPES.get(recipe.name)
    if published is None or published.epochs == planned:
        return text
    return f"{text} (recipe: {published.epochs})"


def _changes(name: str, settings: dict[str, Any]) -> list[str]:
    """List the settings of a run that differ from its recipe, but for the epochs."""
    if name not in RECIPES:
        return []
    published = flat_settings(RECIPES[name], _UNTRAINED)
    changed = [k for k in settings if k != "epochs" and settings[k] != published.get(k)]
    return [f"{key} {settings[key]}" for key in changed]
