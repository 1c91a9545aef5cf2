"""``onelip sweep``: many runs of a recipe, on the processes of a machine or of several."""

import argparse
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onelip.cli import train
from onelip.errors import UsageError
from onelip.experiments.classification import Recipe, build_loss
from onelip.experiments.classification.numbers import Key
from onelip.experiments.executors import EXECUTORS, new_executor
from onelip.experiments.jobs import Executor, one_at_a_time
from onelip.experiments.sweeps._sweep import clear_what_never_began, run_sweep
from onelip.experiments.sweeps.axes import parse_grid, points
from onelip.experiments.sweeps.folder import SweepFolder, is_finished
from onelip.experiments.sweeps.search import (
    best_text,
    objective_key,
    one_value,
    parse_space,
    run_search,
)
from onelip.experiments.sweeps.settings import SweepSettings

_OWN = ("name", "about")  # fields of a recipe that are no settings
_OF_ONE_RUN = ("--out", "--resume", "--quiet", "--help", "-h")


def run(arguments: list[str]) -> None:
    """Run a sweep, go on with one, or do one of its runs.

    Raises:
        UsageError: a run is not finished, or the sweep cannot begin.
    """
    options, rest = _parsed(arguments)
    if options.resume is None:
        folder = _begun(options, rest)
    elif rest or options.grid:
        extra = rest[0] if rest else "--grid"
        raise UsageError(f"--resume takes the settings of the sweep: leave {extra} out")
    else:
        folder = SweepFolder.open(options.resume)
    if options.only is not None:
        if threading.current_thread() is threading.main_thread():  # shells ignore it for "&"
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _work(folder, options.only)
        return
    _run_all(folder, options)


def _run_all(folder: SweepFolder, options: Any) -> None:
    folder.note_session()
    try:
        with _ended_like_interrupted():
            left = _run(folder, _executor(options, folder))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {folder.resume}") from None
    if left:
        names = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        raise UsageError(
            f"{len(left)} of {len(folder.runs())} runs are not finished ({names}): go on with "
            f"{folder.resume}; logs are in {folder.path / 'logs'}"
        )
    what = "runs" if folder.settings.search else "table"
    print(f"all {len(folder.runs())} runs are finished: onelip {what} {folder.path}")
    if folder.settings.search:
        print(best_text(folder, _aim(folder.settings)))


def _run(folder: SweepFolder, executor: Executor) -> list[str]:
    def say(line: str) -> None:
        print(line, flush=True)

    if folder.settings.search:
        return run_search(folder, executor, say, _aim(folder.settings))
    return run_sweep(folder, executor, say)


def _aim(settings: SweepSettings) -> Key:
    """Return what a search maximises."""
    recipe, _, _ = train.parsed(settings.arguments({}))
    assert recipe is not None  # --resume is refused before
    return objective_key(settings.maximise, recipe)


def _executor(options: Any, folder: SweepFolder) -> Executor:
    """Return what runs the workers."""
    slurm = dict(_named(text) for text in options.slurm)
    if slurm and options.on != "slurm":
        raise UsageError("--slurm is for SLURM: give --on slurm, too")
    return new_executor(options.on, options.workers, folder.path.resolve(), slurm)


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--slurm takes NAME=VALUE, as in timeout_min=60, got {text!r}")
    return name, value


@contextlib.contextmanager
def _ended_like_interrupted() -> Iterator[None]:
    """Let SIGTERM end the workers, too, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _begun(options: Any, rest: list[str]) -> SweepFolder:
    """Return the folder of a sweep, whose runs can all begin."""
    if not rest or rest[0].startswith("-"):
        raise UsageError("sweep needs a recipe first: onelip recipes lists them")
    for word in rest:
        if word.split("=")[0] in _OF_ONE_RUN:
            raise UsageError(f"{word} is of one run: the sweep names its runs itself")
    shared: Any = {"recipe": rest[0], "overrides": tuple(rest[1:])}
    if options.search:
        space = {name: text for name, _, text in (axis.partition("=") for axis in options.grid)}
        settings = SweepSettings(
            **shared,
            search=options.search,
            space=space,
            trials=options.trials,
            maximise=options.maximise,
            search_seed=options.search_seed,
        )
        _aim(settings)
    else:
        settings = SweepSettings(**shared, grid=parse_grid(options.grid))
    _check_runs(settings)
    return SweepFolder.open_or_create(settings, options.out)


def _check_runs(settings: SweepSettings) -> None:
    """Refuse a sweep with a run that could not begin, before any does."""
    seen: dict[str, dict[str, str]] = {}
    for name in (*settings.grid, *settings.space):
        if name.split(".")[0] not in Recipe.__dataclass_fields__ or name in _OWN:
            raise UsageError(f"{name} is no setting of a recipe: onelip train --help lists them")
    for point in [_middle(settings)] if settings.search else points(settings.grid):
        words = settings.arguments(point)
        recipe, _, options = train.parsed(words)
        assert recipe is not None  # --resume is refused before
        build_loss(recipe)
        key = repr(recipe)
        if key in seen:
            raise UsageError(f"{seen[key]} and {point} are the same run: leave one of them out")
        seen[key] = point
        train.opened(recipe, options, words)  # decoded once, before workers share it


def _middle(settings: SweepSettings) -> dict[str, str]:
    """Return one point of a search."""
    return {name: one_value(parse_space(name, text)) for name, text in settings.space.items()}


def _work(folder: SweepFolder, name: str) -> None:
    """Do one run of a sweep, from its beginning or from its checkpoint."""
    run_of = folder.named(name)
    path = folder.run_path(run_of)
    with one_at_a_time(folder.log_path(run_of)):
        if is_finished(path, tested=folder.tested):
            return
        if not clear_what_never_began(folder, run_of):
            train.run([*folder.arguments(run_of), f"--out={path}", "--quiet"])
            return
        _, _, options = train.parsed(folder.arguments(run_of))
        more = [] if options.data is None else [f"--data={options.data}"]
        more += [f"--log={options.log}", f"--evaluate={options.evaluate}"]
        more += [] if options.max_minutes is None else [f"--max_minutes={options.max_minutes}"]
        train.run([f"--resume={path}", "--quiet", *more])


def _parsed(arguments: list[str]) -> tuple[Any, list[str]]:
    """Return the options of the sweep, and what it hands on to ``onelip train``."""
    parser = argparse.ArgumentParser(
        prog="onelip sweep RECIPE",
        description="Options that are not listed are those of onelip train, for all runs.",
        allow_abbrev=False,
        exit_on_error=False,
    )
    axes = "objective.offset=0.5,1,2 seed=0..4: a run for each combination"
    parser.add_argument("--grid", nargs="+", default=[], metavar="FIELD=VALUES", help=axes)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    parser.add_argument(
        "--workers", type=int, default=cores, help="runs at the same time, one thread each"
    )
    parser.add_argument("--on", choices=EXECUTORS, default="local", help="what runs the workers")
    slurm = "options of submitit: timeout_min=60 slurm_partition=cpu"
    parser.add_argument("--slurm", nargs="+", default=[], metavar="NAME=VALUE", help=slurm)
    search = "search on held-out images; axes of --grid are 0.5..4, 1e-3..1e-1:log or linear,mlp"
    parser.add_argument("--search", choices=("optuna",), default="", help=search)
    parser.add_argument("--trials", type=int, default=20, help="runs of a search")
    parser.add_argument("--search_seed", type=int, default=0, help="of a search")
    aim = "clean, or certified@EPS, of held-out images"
    parser.add_argument("--maximise", default="", help=aim)
    parser.add_argument("--out", type=Path, help="folder of the sweep; the same command finds it")
    parser.add_argument("--resume", type=Path, help="folder of a sweep to go on with")
    parser.add_argument("--only", metavar="RUN", help="do one run of --resume, as workers do")
    options, rest = parser.parse_known_args(arguments)
    if options.workers < 1:
        raise UsageError(f"--workers must be 1 or more, got {options.workers}")
    if options.only is not None and options.resume is None:
        raise UsageError("--only names a run of a sweep: give --resume SWEEP, too")
    return options, rest
