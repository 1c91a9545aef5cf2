"""The command line: ``onelip COMMAND ...``.

Bad input ends in one line on standard error and exit status 2.
"""

import argparse
import dataclasses
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

from onelip.errors import OnelipError, UsageError, missing_extra

USAGE = """usage: onelip COMMAND [ARGUMENTS]

  train RECIPE [--field value ...]   train, certify, attack and plot; --help lists the fields
  train --resume RUN                 go on with a run that was stopped
  certify RUN                        certified radii of every test image
  attack RUN                         accuracy under attack, below which no certificate may lie
  bound FILE                         proved Lipschitz bounds of a run, a .pt2 or an ONNX file
  plot RUN [RUN ...]                 accuracy against eps; --singular-values draws those of a run
  wgan DATASET | --resume RUN        a generator of images against a critic that is proved
  table NAME                         a published table beside our stored runs
  transport P Q                      a lower bound of the Wasserstein-1 distance of two samples
  transport --task NAME              the same where the distance is known
  transport --resume RUN             go on with a run that was stopped
  recipes                            what can be trained

--data DIR names a folder with a data set in the hub's parquet layout; else it is downloaded."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; exit status 0, 2 after an error that the user can mend, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help", "--version"):
        print(USAGE if command != "--version" else metadata.version("onelip"))
        return 0
    try:
        if command not in COMMANDS:
            raise UsageError(f"no command {command!r}; known: {', '.join(COMMANDS)}")
        COMMANDS[command](_underscored(rest))
        sys.stdout.flush()
    except OnelipError as error:
        print(f"onelip: {_one_line(error)}", file=sys.stderr)
        return 2
    except argparse.ArgumentError as error:
        recipe = [word for word in rest[:1] if command == "train" and not word.startswith("-")]
        place = " ".join([command, *recipe])
        print(f"onelip: {_one_line(error)}; see onelip {place} --help", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, as in `onelip table NAME | head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"onelip: {error.filename or 'disk'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"onelip: interrupted{error}", file=sys.stderr)
        return 130
    return 0


def recipes(arguments: list[str]) -> None:
    """Print every recipe."""
    from onelip.recipes import RECIPES

    _parser("recipes").parse_args(arguments)
    for recipe in RECIPES.values():
        print(f"{recipe.name:22} {recipe.about}")


def train(arguments: list[str]) -> None:
    """Train a recipe or go on with a run, then certify, attack and plot."""
    from onelip.data import load
    from onelip.training import RunFolder
    from onelip.training import train as train_run

    recipe, options = _train_arguments(arguments)
    if options.max_minutes is not None and not options.max_minutes > 0:
        raise UsageError(f"--max_minutes must be positive, got {options.max_minutes}")
    if recipe is None:
        run = RunFolder.open(options.resume)
    elif _rank() == 0:
        run = RunFolder.create(recipe, options.out)
    else:
        run = _awaited(options.out)
    limits = {"max_minutes": options.max_minutes, "progress": not options.quiet}
    try:
        load(run.recipe.dataset, "test", options.data or run.data_folder)  # fail before training
        complete = train_run(run, data=options.data, **limits)
    except OnelipError:
        if recipe is not None:
            run.discard()  # unless an epoch is already saved there
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {run.resume}") from None
    if _rank() != 0:
        return
    if not complete:
        print(
            f"stopped in time; go on with: {run.resume}, "
            f"or take it as it is: onelip certify {run.path}"
        )
        return
    _evaluate(run, options.data)


def certify(arguments: list[str]) -> None:
    """Certify a run."""
    from onelip.evaluation import certify_run, table

    def extend(parser: Any) -> None:
        parser.add_argument(
            "--level", choices=("real", "float"), default="real", help="float: rounding included"
        )
        parser.add_argument(
            "--precision", type=int, default=32, help="bits in which the network runs: 32 or 64"
        )

    run, options = _run_arguments("certify", arguments, extend)
    certify_run(run, options.data, level=options.level, precision=options.precision)
    print(table(run.read(), run.recipe))


def attack(arguments: list[str]) -> None:
    """Attack a run."""
    from onelip.attacks import ATTACKS, DEFAULT_ATTACKS
    from onelip.evaluation import attack_run, table

    def extend(parser: Any) -> None:
        parser.add_argument("--samples", type=int, help="test images to attack")
        parser.add_argument(
            "--attacks", default=",".join(DEFAULT_ATTACKS), help=f"of {', '.join(ATTACKS)}"
        )

    run, options = _run_arguments("attack", arguments, extend)
    names = tuple(name.strip() for name in options.attacks.split(","))
    attack_run(run, options.data, samples=options.samples, attacks=names)
    print(table(run.read(), run.recipe))


def bound(arguments: list[str]) -> None:
    """Print the proved bounds of a run, or of a file with a network."""
    from onelip.evaluation import bound_file, bound_run, bound_text
    from onelip.training import RunFolder

    parser = _parser("bound")
    parser.add_argument("file", type=Path, help="run folder, .pt2 or .onnx file")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all methods together")
    trust = "open parts of a .pt2 file that may run code, because you know who wrote it"
    parser.add_argument("--trust", action="store_true", help=trust)
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if options.file.suffix in (".pt2", ".onnx"):
        result = bound_file(options.file, seconds=options.seconds, trust=options.trust)
    else:
        result = bound_run(RunFolder.open(options.file), seconds=options.seconds)
    print(json.dumps(result, indent=1) if options.json else bound_text(result))


def plot(arguments: list[str]) -> None:
    """Draw runs."""
    from onelip.evaluation import plot as plot_runs
    from onelip.evaluation import plot_singular_values
    from onelip.training import RunFolder

    parser = _parser("plot")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, help="file of the figure")
    parser.add_argument(
        "--singular_values", action="store_true", help="of each layer, before and after training"
    )
    options = parser.parse_args(arguments)
    if options.singular_values:
        if len(options.runs) > 1:
            raise UsageError("--singular-values draws one run: name one folder")
        print(plot_singular_values(RunFolder.open(options.runs[0]), options.out))
        return
    print(plot_runs([RunFolder.open(path) for path in options.runs], options.out))


def wgan(arguments: list[str]) -> None:
    """Train a WGAN or go on with a run, then judge its generator and draw it."""
    from onelip.evaluation.wgan import WGANFolder, judge_wgan, load_images, train_wgan, wgan_text

    settings, options = _wgan_arguments(arguments)
    if options.max_minutes is not None and not options.max_minutes > 0:
        raise UsageError(f"--max_minutes must be positive, got {options.max_minutes}")
    if settings is None:
        run = WGANFolder.open(options.resume)
    else:
        settings.build()  # fail before there is a folder
        run = WGANFolder.create(settings, options.out)
    try:
        load_images(run, "test", options.data)  # fail before training
        limits = {"max_minutes": options.max_minutes, "progress": not options.quiet}
        complete = train_wgan(run, data=options.data, **limits)
        if complete:
            judge_wgan(run, options.data, progress=not options.quiet)
    except OnelipError:
        run.discard()  # if it is new, and nothing is saved there yet
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {run.resume}") from None
    if not complete:
        print(f"stopped in time; go on with: {run.resume}")
        return
    print(f"{wgan_text(run)}\n\nrecord {run.record}")
    print(f"figures {run.path / 'samples.png'}, {run.path / 'history.png'}")


def table(arguments: list[str]) -> None:
    """Print a published table beside our stored runs."""
    from onelip.evaluation.table_text import table_text
    from onelip.evaluation.tables import read_table

    parser = _parser("table")
    parser.add_argument("name", nargs="?", help="folder of the table; without one, lists them")
    parser.add_argument("--tables", type=Path, help="folder of the tables")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    stored = read_table(options.name, options.tables)
    print(stored.as_json() if options.json else table_text(stored))


def transport(arguments: list[str]) -> None:
    """Bound the Wasserstein-1 distance of two samples from below."""
    from onelip.evaluation.transport import TransportRun
    from onelip.evaluation.transport_text import transport_text

    settings, options = _transport_arguments(arguments)
    if settings is None:
        run = TransportRun.open(options.resume)
    else:
        run = TransportRun.create(settings, options.out)
    try:
        content = run.finish(progress=not options.quiet)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {run.folder.resume}") from None
    if options.json:
        print(json.dumps(content, indent=1))
        return
    record, figure = run.folder.record, run.folder.path / "transport.png"
    print(f"{transport_text(content)}\n\nrecord {record}\nfigure {figure}")


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": train,
    "certify": certify,
    "attack": attack,
    "bound": bound,
    "plot": plot,
    "wgan": wgan,
    "table": table,
    "transport": transport,
    "recipes": recipes,
}


def _evaluate(run: Any, data: Path | None) -> None:
    from onelip.evaluation import attack_run, certify_run, plot, table

    certified = certify_run(run, data)
    if run.recipe.attack_samples:
        attack_run(run, data, certified=certified)
    figure = plot([run])
    print(
        f"\n{table(run.read(), run.recipe)}\n\nrecord {run.path / 'metrics.json'}\nfigure {figure}"
    )


def _train_arguments(arguments: list[str]) -> tuple[Any, Any]:
    """The recipe with its overrides (None to resume), and the other options."""
    from onelip.recipes import RECIPES

    if "--resume" in arguments or any(a.startswith("--resume=") for a in arguments):
        parser = _parser("train")
        parser.add_argument("--resume", type=Path, required=True, help="run folder to go on with")
        _add_run_options(parser)
        return None, parser.parse_args(arguments)
    name = next((a for a in arguments if not a.startswith("-")), None)
    if arguments and arguments[0] in ("-h", "--help"):
        name = next(iter(RECIPES))
    elif name is None or name != arguments[0]:
        raise UsageError("train needs a recipe first: onelip recipes lists them")
    if name not in RECIPES:
        raise UsageError(f"no recipe {name!r}: onelip recipes lists them")
    return _overridden(RECIPES[name], arguments[1:] if name in arguments else arguments)


def _overridden(recipe: Any, arguments: list[str]) -> tuple[Any, Any]:
    """Typed overrides of a recipe's fields, of its model's arguments and of its loss's."""
    from onelip.losses import LOSSES
    from onelip.models import MODELS
    from onelip.recipes import Recipe

    model = _chosen("model", MODELS, arguments, recipe.model)
    loss = _chosen("loss", LOSSES, arguments, recipe.loss)
    base = getattr(MODELS[model], "func", MODELS[model])
    parser = _parser(f"train {recipe.name}")
    parser.add_class_arguments(Recipe, skip={"name", "about", "network", "objective"})
    parser.add_function_arguments(base, "network", skip={"input_shape", "classes"})
    parser.add_class_arguments(LOSSES[loss], "objective")
    parser.add_argument("--out", type=Path, help="run folder to make")
    _add_run_options(parser)
    defaults = {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(Recipe)
        if field.name not in ("name", "about", "network", "objective")
    }
    network = {**getattr(MODELS[model], "keywords", {})}
    network |= recipe.network if model == recipe.model else {}
    objective = recipe.objective if loss == recipe.loss else {}
    parser.set_defaults(
        {
            **defaults,
            "model": model,
            "loss": loss,
            **{f"network.{k}": v for k, v in network.items()},
            **{f"objective.{k}": v for k, v in objective.items()},
        }
    )
    options = parser.parse_args(_bracketed(arguments))
    changes = {name: getattr(options, name) for name in defaults}
    changes["network"] = options.network.as_dict()
    changes["objective"] = options.objective.as_dict()
    return dataclasses.replace(recipe, **changes), options


def _wgan_arguments(arguments: list[str]) -> tuple[Any, Any]:
    """The settings (None to resume), and the other options."""
    from onelip.evaluation.wgan import WGANSettings

    def extend(parser: Any) -> None:
        parser.add_argument("dataset", help="of the images")
        parser.add_class_arguments(WGANSettings, skip={"dataset"})

    parser = _run_parser("wgan", arguments, extend)
    parser.add_argument("--data", type=Path, help="folder of the data set; else it is downloaded")
    parser.add_argument("--max_minutes", type=float, help="stop in time, to be resumed")
    return _settings(WGANSettings, parser.parse_args(arguments))


def _chosen(kind: str, known: dict[str, Any], arguments: list[str], default: str) -> str:
    """The value of ``--model`` or ``--loss``, whose own arguments depend on it."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument(f"--{kind}", default=default)
    name: str = getattr(first.parse_known_args(arguments)[0], kind)
    if name not in known:
        raise UsageError(f"no {kind} {name!r}; known: {', '.join(known)}")
    return name


def _run_arguments(
    command: str, arguments: list[str], extend: Callable[[Any], None] | None = None
) -> tuple[Any, Any]:
    from onelip.training import RunFolder

    parser = _parser(command)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--data", type=Path, help="folder of the data set")
    if extend:
        extend(parser)
    options = parser.parse_args(arguments)
    return RunFolder.open(options.run), options


def _transport_arguments(arguments: list[str]) -> tuple[Any, Any]:
    """The settings (None to resume), and the other options."""
    from onelip.evaluation.transport_inputs import TransportSettings

    def extend(parser: Any) -> None:
        words = "a.npy, a.npz:KEY, a.pt, a folder of images, NAME[:SPLIT[:CLASS]], or of a WGAN"
        parser.add_argument("p", nargs="?", help=f"samples of P: {words}")
        parser.add_argument("q", nargs="?", help="samples of Q, likewise")
        parser.add_class_arguments(TransportSettings, skip={"p", "q", "exact"})
        parser.add_argument("--exact", action="store_true", help="the exact distance, if it fits")

    parser = _run_parser("transport", arguments, extend)
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    return _settings(TransportSettings, parser.parse_args(_bracketed(arguments, "widths")))


def _run_parser(command: str, arguments: list[str], extend: Callable[[Any], None]) -> Any:
    """Of a command that goes on with a run, or starts one from settings."""
    parser = _parser(command)
    if any(a.split("=")[0] == "--resume" for a in arguments):
        parser.add_argument("--resume", type=Path, required=True, help="run folder to go on with")
    else:
        extend(parser)
        parser.add_argument("--out", type=Path, help="run folder to make")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _settings(kind: Any, options: Any) -> tuple[Any, Any]:
    """The settings among the options, None if a run is resumed; and the options."""
    if "resume" in options:
        return None, options
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: getattr(options, name) for name in names}), options


def _add_run_options(parser: Any) -> None:
    parser.add_argument("--data", type=Path, help="folder of the data set; else it is downloaded")
    parser.add_argument("--max_minutes", type=float, help="stop after the last epoch that fits")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _parser(command: str) -> Any:
    try:
        from jsonargparse import ArgumentParser, DefaultHelpFormatter
    except ImportError as error:
        raise missing_extra("jsonargparse", "train") from error

    class Formatter(DefaultHelpFormatter):
        """Says nothing of defaults that are nothing, nor that what has one is required."""

        def _expand_help(self, action: Any) -> str:
            text = super()._expand_help(action)
            text = re.sub(r"(, |\()default: null\)", lambda m: ")" if m[1] == ", " else "", text)
            text = re.sub(r"\(required, ([^()]*(\([^()]*\))?[^()]*default: )", r"(\1", text)
            return text.replace("<class 'Path'>", "path").strip()

    return ArgumentParser(
        prog=f"onelip {command}",
        exit_on_error=False,
        default_env=False,
        allow_abbrev=False,
        formatter_class=Formatter,
    )


def _underscored(arguments: list[str]) -> list[str]:
    """``--max-minutes`` is ``--max_minutes``."""
    return [
        re.sub(r"^--[a-z][^=]*", lambda match: "--" + match[0][2:].replace("-", "_"), argument)
        for argument in arguments
    ]


def _rank() -> int:
    """Of this process under ``torchrun``."""
    return int(os.environ.get("RANK", "0"))


def _bracketed(arguments: list[str], name: str = "eps") -> list[str]:
    """``--eps 0.1,0.2`` means ``--eps=[0.1,0.2]``, since the parser wants a list."""
    pattern = rf"(^|\0)--{name}[\0=]([^[\0]+)"
    joined = re.sub(pattern, rf"\1--{name}=[\2]", "\0".join(arguments))
    return joined.split("\0") if arguments else []


def _awaited(path: Path | None) -> Any:
    """The folder that process 0 makes."""
    from onelip.training import RunFolder

    if path is None:
        raise UsageError("several processes need a common folder: --out DIR")
    since = datetime.now(UTC) - timedelta(minutes=1)  # processes start seconds apart
    for _ in range(600):
        if (path / "metrics.json").exists():
            run = RunFolder.open(path)
            if datetime.fromisoformat(run.read()["started"]) >= since:
                return run
        time.sleep(0.1)
    raise UsageError(f"process 0 did not make {path}: choose another --out if it exists")


def _one_line(error: Exception) -> str:
    return " ".join(inspect.cleandoc(str(error)).split())
