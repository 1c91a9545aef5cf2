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
from onelip.data import load
from onelip.errors import OnelipError, UsageError
from onelip.experiments import classification
from onelip.experiments.classification import ClassificationFolder, Recipe
from onelip.experiments.recipes import RECIPES
from onelip.losses import LOSSES
from onelip.models import MODELS

_UNSET = {"name", "about"}  # by options
_PARTS = {"network", "objective"}  # with options of their own


def run(arguments: list[str]) -> None:
    """Train a recipe or go on with a run, and evaluate it if it is complete."""
    recipe, options = parsed(arguments)
    check_minutes(options)
    folder = _folder(recipe, options)
    try:
        if options.evaluate == "test":
            load(folder.recipe.dataset, "test", options.data or folder.data_folder)  # fail early
        limits = {"max_minutes": options.max_minutes, "progress": not options.quiet}
        log = [name.strip() for name in options.log.split(",") if name.strip()]
        complete = classification.train(folder, data=options.data, log=log, **limits)
    except OnelipError:
        if recipe is not None:
            folder.discard()  # unless an epoch is already saved there
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {folder.resume}") from None
    if _rank() != 0:
        return
    if complete and options.evaluate == "held-out":
        held_out = classification.certify_held_out(folder, options.data)
        print(classification.held_out_text(held_out, folder.path))
    elif complete:
        _evaluate(folder, options.data)
    else:
        print(
            f"stopped in time; go on with: {folder.resume}, "
            f"or take it as it is: onelip certify {folder.path}"
        )


def _folder(recipe: Recipe | None, options: Any) -> ClassificationFolder:
    """Return the folder of the run; process 0 makes a new one."""
    if recipe is None:
        return ClassificationFolder.open(options.resume)
    if _rank() == 0:
        return ClassificationFolder.create(recipe, options.out)
    return _awaited(options.out)


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


def _evaluate(folder: ClassificationFolder, data: Path | None) -> None:
    certified = classification.certify_run(folder, data)
    if folder.recipe.attack_samples:
        classification.attack_run(folder, data, certified=certified)
    figure = classification.plot([folder])
    text = classification.table(folder.read(), folder.recipe)
    print(f"\n{text}\n\nrecord {folder.record}\nfigure {figure}")


def parsed(arguments: list[str]) -> tuple[Recipe | None, Any]:
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
    parser.add_argument("--log", default="", help="loggers beside epochs.csv: tensorboard,wandb")
    images = "images to certify at the end; held-out ones for choices between settings"
    parser.add_argument("--evaluate", choices=("test", "held-out"), default="test", help=images)


def _overridden(recipe: Recipe, arguments: list[str]) -> tuple[Recipe, Any]:
    """Parse overrides of a recipe's fields, and of the arguments of its model and loss."""
    model = _chosen("model", MODELS, arguments, recipe.model)
    loss = _chosen("loss", LOSSES, arguments, recipe.loss)

    def add_settings(parser: Any) -> None:
        made_by = getattr(MODELS[model], "func", MODELS[model])  # of a partial
        parser.add_class_arguments(Recipe, skip=_UNSET | _PARTS)
        parser.add_function_arguments(made_by, "network", skip={"input_shape", "classes"})
        parser.add_class_arguments(LOSSES[loss], "objective")

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
