"""``onelip train``: train a recipe or go on with a run, then certify, attack and plot."""

import argparse
import dataclasses
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from onelip.cli.arguments import (
    add_training_options,
    bracketed,
    check_minutes,
    resumes,
    run_parser,
)
from onelip.data import DataSet, Source, open_data
from onelip.data.own import holds_own_data
from onelip.data.own.tables import LABELS
from onelip.errors import OnelipError, UsageError
from onelip.experiments import classification
from onelip.experiments.classification import ClassificationFolder, Recipe
from onelip.experiments.recipes import RECIPES
from onelip.image_sets import OWN
from onelip.losses import LOSSES
from onelip.models import MODELS

_UNSET = {"name", "about"}  # by options
_PARTS = {"network", "objective"}  # with options of their own


def run(arguments: list[str]) -> None:
    """Train a recipe or go on with a run, and evaluate it if it is complete."""
    recipe, options = _parsed(arguments)
    check_minutes(options)
    folder = _folder(recipe, options, arguments)
    try:
        if recipe is None:
            _ = folder.data(options.data).test  # fail early
        limits = {"max_minutes": options.max_minutes, "progress": not options.quiet}
        complete = classification.train(folder, **limits)
    except OnelipError:
        if recipe is not None:
            folder.discard()  # unless an epoch is already saved there
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {folder.resume}") from None
    if _rank() != 0:
        return
    if complete:
        _evaluate(folder)
    else:
        print(
            f"stopped in time; go on with: {folder.resume}, "
            f"or take it as it is: onelip certify {folder.path}"
        )


def _folder(recipe: Recipe | None, options: Any, arguments: list[str]) -> ClassificationFolder:
    """Return the folder of the run; process 0 makes a new one."""
    if recipe is None:
        return ClassificationFolder.open(options.resume)
    if _rank() != 0:
        return _awaited(options.out)
    asked = any(argument.split("=")[0] == "--validation" for argument in arguments)
    data = _opened(recipe, options, asked)
    if data.name == OWN:
        recipe = dataclasses.replace(recipe, dataset=OWN, validation=len(data.validation))
        print(data.summary(), flush=True)
    return ClassificationFolder.start(recipe, data, options.out)


def _opened(recipe: Recipe, options: Any, asked: bool) -> DataSet:
    """Open the data of a new run.

    Args:
        recipe: names a published data set, or that data of one's own are needed.
        options: name the place.
        asked: whether the number of held-out images is an option.
    """
    place = None if options.data is None else str(options.data)
    own = place is not None and holds_own_data(recipe.dataset, place)
    name = OWN if own else recipe.dataset
    written = recipe.dataset == OWN and recipe.validation != Recipe.validation
    source = None if place is None else Source(place, options.label, _size(options.size))
    if source is None and (options.label or options.size):
        raise UsageError("--label and --size are for data of your own, which --data names")
    validation = recipe.validation if name != OWN or asked or written else None
    data = open_data(name, source, validation=validation, split_seed=recipe.split_seed)
    _ = data.test  # fail early
    return data


def _size(text: str | None) -> tuple[int, int] | None:
    """Height and width of ``64`` or ``48x64``."""
    if text is None:
        return None
    sides = text.split("x")
    if len(sides) > 2 or not all(side.isdecimal() and 0 < int(side) < 2**15 for side in sides):
        raise UsageError(f"--size takes a side or HEIGHTxWIDTH, as 64 or 48x64, got {text!r}")
    return int(sides[0]), int(sides[-1])


def _awaited(path: Path | None) -> ClassificationFolder:
    """Wait for the folder that process 0 makes."""
    if path is None:
        raise UsageError("several processes need a common folder: --out DIR")
    since = datetime.now(UTC) - timedelta(minutes=1)  # processes start seconds apart
    for _ in range(600):
        if (path / "metrics.json").exists():
            folder = ClassificationFolder.open(path)
            if datetime.fromisoformat(folder.read()["started"]) >= since:
                return folder
        time.sleep(0.1)
    raise UsageError(f"process 0 did not make {path}: choose another --out if it exists")


def _rank() -> int:
    """Rank of this process under ``torchrun``."""
    return int(os.environ.get("RANK", "0"))


def _evaluate(folder: ClassificationFolder) -> None:
    certified = classification.certify_run(folder)
    if folder.recipe.attack_samples:
        classification.attack_run(folder, certified=certified)
    figure = classification.plot([folder])
    text = classification.table(folder.read(), folder.recipe)
    print(f"\n{text}\n\nrecord {folder.record}\nfigure {figure}")


def _parsed(arguments: list[str]) -> tuple[Recipe | None, Any]:
    """Return the recipe with its overrides (None to resume), and the other options."""
    if resumes(arguments):
        parser = run_parser("train", arguments, lambda _: None)
        _add_options(parser)
        return None, parser.parse_args(arguments)
    name = next((a for a in arguments if not a.startswith("-")), None)
    if arguments and arguments[0] in ("-h", "--help"):
        return _overridden(next(iter(RECIPES.values())), arguments)
    if name is None or name != arguments[0]:
        raise UsageError("train needs a recipe first: onelip recipes lists them")
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}: onelip recipes lists them")
    return _overridden(RECIPES[name], arguments[1:])


def _add_options(parser: Any) -> None:
    add_training_options(parser, "stop after the last epoch that fits")


def _overridden(recipe: Recipe, arguments: list[str]) -> tuple[Recipe, Any]:
    """Parse overrides of a recipe's fields, and of the arguments of its model and loss."""
    model = _chosen("model", MODELS, arguments, recipe.model)
    loss = _chosen("loss", LOSSES, arguments, recipe.loss)

    def add_settings(parser: Any) -> None:
        made_by = getattr(MODELS[model], "func", MODELS[model])  # of a partial
        parser.add_class_arguments(Recipe, skip=_UNSET | _PARTS)
        parser.add_function_arguments(made_by, "network", skip={"input_shape", "classes"})
        parser.add_class_arguments(LOSSES[loss], "objective")
        columns = f"of a table: column of the labels; {', '.join(LABELS)} by default"
        parser.add_argument("--label", help=columns)
        parser.add_argument("--size", help="scale and crop images: 64, or HEIGHTxWIDTH")

    parser = run_parser(f"train {recipe.name}", arguments, add_settings)
    _add_options(parser)
    parser.set_defaults(_defaults(recipe, model, loss))
    options = parser.parse_args(bracketed(arguments, "eps"))
    changes = {name: getattr(options, name) for name in _plain_fields()}
    parts = {name: getattr(options, name).as_dict() for name in _PARTS}
    return dataclasses.replace(recipe, **changes, **parts), options


def _plain_fields() -> list[str]:
    """List the fields of a recipe that are options as they are."""
    return [f.name for f in dataclasses.fields(Recipe) if f.name not in _UNSET | _PARTS]


def _defaults(recipe: Recipe, model: str, loss: str) -> dict[str, Any]:
    """Return the recipe's own values; another model or loss starts from its own."""
    network = {**getattr(MODELS[model], "keywords", {})}
    network |= recipe.network if model == recipe.model else {}
    objective = recipe.objective if loss == recipe.loss else {}
    return {
        **{name: getattr(recipe, name) for name in _plain_fields()},
        "model": model,
        "loss": loss,
        **{f"network.{name}": value for name, value in network.items()},
        **{f"objective.{name}": value for name, value in objective.items()},
    }


def _chosen(kind: str, known: dict[str, Any], arguments: list[str], default: str) -> str:
    """Return the value of ``--model`` or ``--loss``, whose own arguments depend on it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument(f"--{kind}", default=default)
    name: str = getattr(first.parse_known_args(arguments)[0], kind)
    if name not in known:
        raise UsageError(f"no {kind} {name!r}; known: {', '.join(known)}")
    return name
