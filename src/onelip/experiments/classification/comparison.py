"""Runs beside each other: where they are, what differs between them, and seeds of one setting."""

import dataclasses
import inspect
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onelip.errors import OnelipError, UsageError
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.numbers import ATTACKED, Key, run_numbers
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.record_schema import Attack, TrainingRecord, parsed
from onelip.image_sets import OWN
from onelip.losses import LOSSES
from onelip.models import MODELS

_ANY = ("about", "threads")  # change neither a result nor what it means


@dataclass(frozen=True)
class Run:
    """Run as comparisons need it.

    Attributes:
        path: its folder.
        seed: its seed.
        identity: everything that its numbers depend on but the seed: settings by their option's
            name, ``recipe``, and how far it was trained, on which data and device, and what
            certified and attacked it.
        numbers: see ``run_numbers``.
        state: ``finished``, or what is missing.
        minutes: of training.
        test_images: how many there are, 0 before they are certified.
    """

    path: Path
    seed: int
    identity: dict[str, Any]
    numbers: dict[Key, float]
    state: str
    minutes: float
    test_images: int

    @property
    def folder(self) -> ClassificationFolder:
        """Folder of the run."""
        return ClassificationFolder(self.path)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        runs: in the order of their seeds.
        differing: what differs between this group and others, by name.
    """

    runs: list[Run]
    differing: dict[str, str]

    @property
    def label(self) -> str:
        """What differs in a few words: ``offset 0.5, head linear``; else the recipe."""
        words = [f"{name.rpartition('.')[2]} {value}" for name, value in self.differing.items()]
        if "recipe" in self.differing:
            words[list(self.differing).index("recipe")] = self.differing["recipe"]
        return ", ".join(words) or str(self.runs[0].identity["recipe"])


def find_runs(paths: Iterable[Path], skipped: Callable[[str], None] = lambda _: None) -> list[Run]:
    """Read runs of ``onelip train``, each once.

    Args:
        paths: run folders, or folders that hold some at any depth, such as a sweep.
        skipped: takes a line for each run inside a folder that cannot be read.

    Raises:
        UsageError: a path is no folder, or a run folder that cannot be read.
    """
    found: dict[Path, Run] = {}
    for path in paths:
        if (path / "metrics.json").exists() or not path.is_dir():
            found.setdefault(path.resolve(), read(path))
            continue
        for record in sorted(path.rglob("metrics.json"), key=_in_order):
            try:
                if "recipe" in parsed(record):
                    found.setdefault(record.parent.resolve(), read(record.parent))
            except (OnelipError, ValueError) as error:
                skipped(str(error))
    return list(found.values())


def _data(content: TrainingRecord) -> str:
    """Return the note of the data; of one's own the beginning of the test split's SHA-256, too."""
    stored, certify = content.get("data", {}), content.get("certify")
    note = (certify["data"] if certify else "") or stored.get("note", "")
    test = stored.get("splits", {}).get("test") if stored.get("name") == OWN else None
    return note if test is None else f"{note or 'own data'}, {test['sha256'][:12]}"


def read(path: Path) -> Run:
    """Read a run.

    Raises:
        UsageError: there is no readable one.
    """
    folder = ClassificationFolder.open(path)
    content, recipe = folder.read(), folder.recipe
    numbers, attacked = run_numbers(content)
    train, certify = content.get("train"), content.get("certify")
    notes = {
        "trained": _trained(content, recipe),
        "proof": f"{certify['method']}, level {certify['level']}" if certify else "none",
        "attacks": attacked.get(ATTACKED, "none"),
        "data": _data(content),
        "device": content.get("device", ""),
    }
    settings = flat_settings(recipe, without=("name", "seed", *_ANY))
    return Run(
        path=path,
        seed=recipe.seed,
        identity={"recipe": recipe.name, **settings, **notes},
        numbers=numbers,
        state=_state(content, recipe),
        minutes=train["seconds"] / 60 if train else 0.0,
        test_images=certify["test"]["samples"] if certify else 0,
    )


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Put runs together that differ only in their seed; sorted by what differs between groups."""
    kinds: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        kinds[json.dumps(run.identity, sort_keys=True)].append(run)
    together = [sorted(kind, key=lambda run: run.seed) for kind in kinds.values()]
    names = differing([kind[0] for kind in together])
    groups = [
        Group(kind, {name: as_text(kind[0].identity.get(name)) for name in names})
        for kind in together
    ]
    return sorted(groups, key=lambda group: [_numeric(value) for value in group.differing.values()])


def common_attacks(group: Group) -> dict[str, Attack]:
    """Return the attack records of the first run that all runs of a group have."""
    first, *others = [run.folder.read().get("attack", {}) for run in group.runs]
    return {key: attack for key, attack in first.items() if all(key in other for other in others)}


def differing(runs: Sequence[Run]) -> list[str]:
    """Name what differs between runs: recipes, and what differs inside one recipe."""
    recipes: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        recipes[run.identity["recipe"]].append(run)
    names = {
        name: None
        for of_one in recipes.values()
        for name in {name: None for run in of_one for name in run.identity}
        if len({as_text(run.identity.get(name)) for run in of_one}) > 1
    }
    return [*(["recipe"] if len(recipes) > 1 else []), *names]


def as_text(value: Any) -> str:
    """Write a setting: None as a dash, a list with commas."""
    if value is None or value == "":
        return "-"
    if isinstance(value, list):
        return "[" + ",".join(map(as_text, value)) + "]"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def flat_settings(recipe: Recipe, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return settings by their option's name, with the defaults of network and loss.

    Args:
        recipe: the settings.
        without: names of fields that are left out.
    """
    settings = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(Recipe)}
    settings = {name: value for name, value in settings.items() if name not in without}
    for part, known, choice in (("network", MODELS, "model"), ("objective", LOSSES, "loss")):
        made_by: Any = known.get(settings[choice])
        given = {**_defaults(made_by), **settings.pop(part)}
        settings |= {f"{part}.{name}": value for name, value in given.items()}
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # tuples become lists
    return plain


def _defaults(made_by: Any) -> dict[str, Any]:
    """Return the default keyword arguments of a model or a loss."""
    parameters = inspect.signature(made_by).parameters.values() if made_by else ()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _trained(content: TrainingRecord, recipe: Recipe) -> str:
    if "train" not in content:
        return "not yet"
    done = len(content["train"]["epochs"])
    return "whole" if content["train"]["complete"] else f"{done} of {recipe.epochs} epochs"


def _state(content: TrainingRecord, recipe: Recipe) -> str:
    if (trained := _trained(content, recipe)) != "whole":
        return "begun" if trained == "not yet" else f"stopped after {trained}"
    if "certify" not in content:
        return "not certified"
    attacked = "attack" in content or not recipe.attack_samples
    return "finished" if attacked else "not attacked"


def _in_order(path: Path) -> list[tuple[int, float, str]]:
    return [_numeric(part) for part in str(path).replace("=", ",").replace("/", ",").split(",")]


def _numeric(text: str) -> tuple[int, float, str]:
    """Sort key: numbers by their size, before words."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def matching(runs: Iterable[Run], conditions: Sequence[str]) -> list[Run]:
    """Return the runs that meet all conditions.

    Args:
        runs: to choose from.
        conditions: ``NAME=VALUE`` or ``NAME=VALUE,VALUE``, of a setting, ``recipe``, ``seed``,
            ``state``, ``device`` and the like.

    Raises:
        UsageError: a condition is none, or names what no run has.
    """
    runs = list(runs)
    for condition in conditions:
        name, equals, values = condition.partition("=")
        name = {"name": "recipe"}.get(name, name.replace("-", "_"))
        if not equals or not values:
            raise UsageError(f"{condition!r} is no condition: write --where NAME=VALUE, seed=0,1")
        known = {"seed", "state", *(key for run in runs for key in run.identity)}
        if runs and name not in known:
            raise UsageError(f"no setting {name!r} in --where; known: {', '.join(sorted(known))}")
        wanted = {_numeric(value.strip()) for value in values.split(",")}
        runs = [run for run in runs if _numeric(_value(run, name)) in wanted]
    return runs


def _value(run: Run, name: str) -> str:
    if name in ("seed", "state"):
        return str(getattr(run, name))
    value = run.identity.get(name)
    return repr(value) if isinstance(value, float) else as_text(value)
