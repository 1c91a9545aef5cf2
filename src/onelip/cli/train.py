"""``onelip train``: train a recipe or go on with a run, then certify, attack and plot."""

import argparse
import dataclasses
import inspect
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

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
from onelip.experiments.own_code import find, located
from onelip.experiments.recipes import RECIPES
from onelip.experiments.recipes.user_recipes import code_of, find_recipe
from onelip.experiments.record_schema import Code
from onelip.image_sets import OWN
from onelip.losses import LOSSES
from onelip.models import MODELS

_UNSET = {"name", "about"}  # by options
_PARTS = {"network", "objective"}  # with options of their own


def run(arguments: list[str]) -> None:
    """Train a recipe or go on with a run, and evaluate it if it is complete."""
    recipe, code, options = parsed(arguments)
    check_minutes(options)
    folder = _folder(recipe, code, options, arguments)
    try:
        if recipe is None and options.evaluate == "test":
            _ = folder.data(options.data).test  # fail early
        limits = {"max_minutes": options.max_minutes, "progress": not options.quiet}
        log = [name.strip() for name in options.log.split(",") if name.strip()]
        complete = classification.train(folder, log=log, **limits)
    except OnelipError:
        if recipe is not None:
            folder.discard()  # unless an epoch is already saved there
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {folder.resume}") from None
    if _rank() != 0:
        return
    if complete and options.evaluate == "held-out":
        held_out = classification.certify_held_out(folder)
        print(classification.held_out_text(held_out, folder.path))
    elif complete:
        _evaluate(folder)
    else:
        print(
            f"stopped in time; go on with: {folder.resume}, "
            f"or take it as it is: onelip certify {folder.path}"
        )


def _folder(
    recipe: Recipe | None, code: dict[str, Code], options: Any, arguments: list[str]
) -> ClassificationFolder:
    """Return the folder of the run; process 0 makes a new one."""
    if recipe is None:
        return ClassificationFolder.open(options.resume)
    if _rank() != 0:
        return _awaited(options.out)
    data = opened(recipe, options, arguments)
    if data.name == OWN:
        recipe = dataclasses.replace(recipe, dataset=OWN, validation=len(data.validation))
        print(data.summary(), flush=True)
    return ClassificationFolder.start(recipe, data, options.out, {**code, **code_of(recipe)})


def opened(recipe: Recipe, options: Any, arguments: list[str]) -> DataSet:
    """Open the data of a new run.

    Args:
        recipe: names a published data set, or that data of one's own are needed.
        options: name the place.
        arguments: what was given to the command.
    """
    asked = any(argument.split("=")[0] == "--validation" for argument in arguments)
    place = None if options.data is None else str(options.data)
    own = place is not None and holds_own_data(recipe.dataset, place)
    name = OWN if own else recipe.dataset
    written = recipe.dataset == OWN and recipe.validation != Recipe.validation
    source = None if place is None else Source(place, options.label, _size(options.size))
    if source is None and (options.label or options.size):
        raise UsageError("--label and --size are for data of your own, which --data names")
    validation = recipe.validation if name != OWN or asked or written else None
    data = open_data(name, source, validation=validation, split_seed=recipe.split_seed)
    _ = data.test if options.evaluate == "test" else data.train  # fail early
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


def parsed(arguments: list[str]) -> tuple[Recipe | None, dict[str, Code], Any]:
    """Return the recipe with its overrides (None to resume), its file, and the other options."""
    if resumes(arguments):
        parser = run_parser("train", arguments, lambda _: None)
        _add_options(parser)
        return None, {}, parser.parse_args(arguments)
    name = next((a for a in arguments if not a.startswith("-")), None)
    if arguments and arguments[0] in ("-h", "--help"):
        recipe, options = _overridden(next(iter(RECIPES.values())), arguments)  # prints the help
        return recipe, {}, options
    if name is None or name != arguments[0]:
        raise UsageError("train needs a recipe first: onelip recipes lists them")
    recipe, code = find_recipe(name)
    recipe, options = _overridden(recipe, arguments[1:])
    return recipe, code, options


def _add_options(parser: Any) -> None:
    add_training_options(parser, "stop after the last epoch that fits")
    parser.add_argument("--log", default="", help="loggers beside epochs.csv: tensorboard,wandb")
    images = "images to certify at the end; held-out ones for choices between settings"
    parser.add_argument("--evaluate", choices=("test", "held-out"), default="test", help=images)


def _overridden(recipe: Recipe, arguments: list[str]) -> tuple[Recipe, Any]:
    """Parse overrides of a recipe's fields, and of the arguments of its model and loss."""
    model = _chosen("model", arguments, recipe.model)
    loss = _chosen("loss", arguments, recipe.loss)
    built, lost = find("model", model, MODELS), find("loss", loss, LOSSES)

    def add_settings(parser: Any) -> None:
        parser.add_class_arguments(Recipe, skip=_UNSET | _PARTS)
        _add_arguments(parser, built, "network", 2)
        _add_arguments(parser, lost, "objective", 0)
        columns = f"of a table: column of the labels; {', '.join(LABELS)} by default"
        parser.add_argument("--label", help=columns)
        parser.add_argument("--size", help="scale and crop images: 64, or HEIGHTxWIDTH")

    parser = run_parser(f"train {recipe.name}", arguments, add_settings)
    _add_options(parser)
    defaults, others = _defaults(recipe, (model, built), (loss, lost))
    parser.set_defaults(defaults)
    options = parser.parse_args(bracketed(arguments, "eps"))
    changes = {name: getattr(options, name) for name in _plain_fields()}
    changes |= {"model": model, "loss": loss}
    parts: dict[str, Any] = {
        name: others[name] | (getattr(options, name).as_dict() if name in options else {})
        for name in _PARTS
    }
    return dataclasses.replace(recipe, **changes, **parts), options


def _add_arguments(parser: Any, made_by: Any, group: str, given: int) -> None:
    """Add the arguments of a model or a loss, without the first few, which are given."""
    made_by = getattr(made_by, "func", made_by)  # of a partial
    if not callable(made_by):
        raise UsageError(f"a {type(made_by).__name__} builds nothing: name a function or a class")
    skip = {*list(inspect.signature(made_by).parameters)[:given]}
    add = parser.add_class_arguments if inspect.isclass(made_by) else parser.add_function_arguments
    add(made_by, group, skip=skip, fail_untyped=False)


def _takes(made_by: Any, name: str) -> bool:
    return name in inspect.signature(getattr(made_by, "func", made_by)).parameters


def _plain_fields() -> list[str]:
    """List the fields of a recipe that are options as they are."""
    return [f.name for f in dataclasses.fields(Recipe) if f.name not in _UNSET | _PARTS]


def _defaults(
    recipe: Recipe, model: tuple[str, Any], loss: tuple[str, Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return the recipe's own values; another model or loss starts from its own.

    Args:
        recipe: with values of its model and loss.
        model: the name that was chosen, and what builds it.
        loss: likewise.

    Returns:
        Defaults of options, and by part the arguments that are no options, of ``**kwargs``.
    """
    values = {name: getattr(recipe, name) for name in _plain_fields()}
    options: dict[str, Any] = {**values, "model": model[0], "loss": loss[0]}
    others: dict[str, dict[str, Any]] = {}
    for part, (name, made_by), own in (
        ("network", model, recipe.model),
        ("objective", loss, recipe.loss),
    ):
        given = {**getattr(made_by, "keywords", {})}
        given |= getattr(recipe, part) if name == own else {}
        others[part] = {key: value for key, value in given.items() if not _takes(made_by, key)}
        options |= {f"{part}.{key}": value for key, value in given.items() if _takes(made_by, key)}
    return options, others


def _chosen(kind: Literal["model", "loss"], arguments: list[str], default: str) -> str:
    """Return the value of ``--model`` or ``--loss``, whose own arguments depend on it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument(f"--{kind}", default=default)
    name: str = getattr(first.parse_known_args(arguments)[0], kind)
    return located(name, Path.cwd())
