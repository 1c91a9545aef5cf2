"""List of runs: state, what differs between their settings, and numbers."""

from collections.abc import Sequence

from onelip.errors import UsageError
from onelip.experiments.classification.comparison import Run, as_text, differing
from onelip.experiments.classification.numbers import Key, find_key, in_order, key_text
from onelip.experiments.tables.text import columns_text

_WORDS = ("run", "seed", "state", "minutes")
_ALL = 6  # radii that are listed if nobody chooses


def runs_list(runs: Sequence[Run], columns: str | None = None) -> str:
    """Format a line for each run.

    Args:
        runs: in the order of the lines.
        columns: names of numbers with commas between them; clean and certified accuracy by default.

    Raises:
        UsageError: no run has a number that is asked for.
    """
    if not runs:
        return "no runs"
    known = _numbers_of(runs)
    chosen = [key for key in known if key[0] in ("clean", "certified")][: 1 + _ALL]
    chosen = chosen or [key for key in known if key[0].startswith("held-out-")]
    if columns is not None:
        chosen = [find_key(name, known) for name in columns.split(",")]
    names = [name for name in differing(runs) if name != "trained"]
    recipe = [] if "recipe" in names else ["recipe"]
    names = [*recipe, *names]
    short = [name.rpartition(".")[2] for name in names]
    headings = names if len(set(short)) < len(short) else short
    lines = [["run", *headings, "seed", "state", *map(key_text, chosen), "minutes"]]
    for run in runs:
        numbers = [f"{run.numbers[key]:.2f}" if key in run.numbers else "-" for key in chosen]
        settings = [as_text(run.identity.get(name)) for name in names]
        minutes = f"{run.minutes:.1f}"
        lines.append([str(run.path), *settings, str(run.seed), run.state, *numbers, minutes])
    return columns_text(lines, 1 + len(names) + 2)


def sorted_by(runs: Sequence[Run], name: str) -> list[Run]:
    """Sort runs by a setting, or by a number, the largest first; those without one come last.

    Raises:
        UsageError: neither has this name.
    """
    if name in _WORDS:
        key = {"run": "path"}.get(name, name)
        return sorted(runs, key=lambda run: (getattr(run, key), str(run.path)))
    if any(name in run.identity for run in runs):
        return sorted(runs, key=lambda run: _setting(run, name))
    try:
        number = find_key(name, _numbers_of(runs))
    except UsageError as error:
        settings = sorted({key for run in runs for key in run.identity})
        raise UsageError(f"{error}; settings: {', '.join(settings)}") from None
    return sorted(runs, key=lambda run: -run.numbers.get(number, float("-inf")))


def _setting(run: Run, name: str) -> tuple[int, float, str]:
    value = run.identity.get(name)
    if isinstance(value, int | float):
        return 0, float(value), ""
    return 1, 0.0, as_text(value)


def _numbers_of(runs: Sequence[Run]) -> list[Key]:
    return in_order({key for run in runs for key in run.numbers})
