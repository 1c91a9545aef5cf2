"""Search for settings by Optuna, on held-out images alone.

A trial is a run that no test image has seen: it is trained with ``--evaluate held-out``. What was
tried is in the record of the sweep, its values in those of the runs, so that the same command goes
on where it ended.
"""

import re
from collections.abc import Callable
from typing import Any

from onelip.errors import UsageError, missing_extra
from onelip.experiments.classification import Recipe
from onelip.experiments.classification.comparison import read
from onelip.experiments.classification.numbers import Key, find_key, key_text
from onelip.experiments.jobs import Executor
from onelip.experiments.sweeps._sweep import is_done, run_all
from onelip.experiments.sweeps.axes import split
from onelip.experiments.sweeps.folder import SweepFolder, SweepRun

_INTERVAL = re.compile(r"([^,\[]+?)\.\.([^,\[]+?)(:log)?")


def parse_space(name: str, text: str) -> Any:
    """Parse an axis of a search: ``8..64``, ``0.5..4``, ``1e-3..1e-1:log`` or ``linear,mlp``.

    Raises:
        UsageError: it is none of these.
    """
    distributions = _optuna().distributions
    found = _INTERVAL.fullmatch(text)
    if found is None:
        choices = split(text)
        if "" in choices or len(set(choices)) < len(choices):
            raise UsageError(f"{name}={text}: write values with commas, or LOW..HIGH")
        return distributions.CategoricalDistribution(choices)
    log = found[3] is not None
    try:
        if all(re.fullmatch(r"-?\d+", end) for end in (found[1], found[2])):
            return distributions.IntDistribution(int(found[1]), int(found[2]), log=log)
        return distributions.FloatDistribution(float(found[1]), float(found[2]), log=log)
    except ValueError as error:
        raise UsageError(f"{name}={text} is no interval: {error}") from None


def one_value(distribution: Any) -> str:
    """Return one value of an axis, as an option."""
    first = distribution.choices[0] if hasattr(distribution, "choices") else distribution.low
    return _as_option(first)


def objective_key(maximise: str, recipe: Recipe) -> Key:
    """Return the number of held-out images that is maximised.

    Raises:
        UsageError: it is neither clean nor certified at a radius of the recipe.
    """
    if maximise.startswith("held-out-"):
        maximise = maximise.removeprefix("held-out-")
    known: list[Key] = [("clean", 0.0), *(("certified", eps) for eps in recipe.eps)]
    try:
        kind, eps = find_key(maximise, known)
    except UsageError as error:
        raise UsageError(f"--maximise: {error}; --eps has the radii") from None
    return f"held-out-{kind}", eps


def run_search(
    folder: SweepFolder, executor: Executor, say: Callable[[str], None], key: Key
) -> list[str]:
    """Run trials until there are as many as the sweep is to have.

    Args:
        folder: of the sweep.
        executor: what runs the workers; it is stopped at the end, and by Ctrl-C.
        say: takes each line.
        key: the number that is maximised.

    Returns:
        The names of runs that are not finished.
    """
    optuna, settings = _optuna(), folder.settings
    space = {name: parse_space(name, text) for name, text in settings.space.items()}
    stored = folder.runs()
    sampler = optuna.samplers.TPESampler(seed=settings.search_seed + len(stored))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    left = [run for run in stored if not is_done(folder, run)]
    for run in stored:
        if run not in left:
            params = _params(run, space)
            value = _value(folder, run, key)
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=space, value=value)
            )
    trials: dict[str, Any] = {}

    def again(run: SweepRun) -> SweepRun:
        study.enqueue_trial(_params(run, space))
        trials[run["name"]] = study.ask(space)
        return run

    def more() -> SweepRun | None:
        runs = folder.runs()
        if len(runs) >= settings.trials:
            return None
        trial = study.ask(space)
        values = {name: _as_option(trial.params[name]) for name in space}
        run = SweepRun(name=f"trial-{len(runs):04d}", values=values)
        trials[run["name"]] = trial
        folder.write({"runs": [*runs, run]})
        return run

    def ended(run: SweepRun, done: bool) -> None:
        trial = trials[run["name"]]
        if done:
            study.tell(trial, _value(folder, run, key))
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)

    first, total = [again(run) for run in left], settings.trials
    return run_all(folder, executor, say, first, total=total, more=more, ended=ended)


def best_text(folder: SweepFolder, key: Key) -> str:
    """Name the best trial, and how to test it."""
    done = [run for run in folder.runs() if is_done(folder, run)]
    best = max(done, key=lambda run: _value(folder, run, key))
    values = " ".join(f"--{name}={value}" for name, value in best["values"].items())
    path = folder.run_path(best)
    return (
        f"best of {len(done)}: {best['name']} ({values}), "
        f"{key_text(key)} {_value(folder, best, key):.2f} %\n"
        f"no test image was used; onelip certify {path} uses them, once"
    )


def _value(folder: SweepFolder, run: SweepRun, key: Key) -> float:
    return read(folder.run_path(run)).numbers[key]


def _params(run: SweepRun, space: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a stored run, as the distributions know them."""
    found = {}
    for name, distribution in space.items():
        text = run["values"].get(name, "")
        try:
            kind = type(distribution).__name__
            value: Any = {"IntDistribution": int, "FloatDistribution": float}.get(kind, str)(text)
            distribution.to_internal_repr(value)
        except ValueError:
            raise UsageError(f"{run['name']} of the sweep has no value of {name}") from None
        found[name] = value
    return found


def _as_option(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise missing_extra("optuna", "sweep") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
