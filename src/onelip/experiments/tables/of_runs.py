"""Tables of runs: means and deviations over seeds, as text, CSV, LaTeX or Markdown."""

import csv
import io
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onelip.errors import UsageError
from onelip.experiments.classification.comparison import Group, Run, grouped
from onelip.experiments.classification.numbers import ATTACKED, Key, find_key, in_order, key_text
from onelip.experiments.classification.text import format_eps
from onelip.experiments.tables.text import columns_text

_COMMON = ("trained", "proof", "attacks", "data", "device")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """Mean over seeds, and the sample standard deviation of two or more."""

    mean: float
    std: float | None


@dataclass(frozen=True)
class RunTable:
    """Table of runs.

    Attributes:
        groups: a row each: runs that differ only in their seed.
        settings: names of what differs between rows.
        columns: numbers that are shown.
        cells: for each row its numbers, None where not every seed has it.
        notes: what a reader of the numbers has to know.
    """

    groups: list[Group]
    settings: list[str]
    columns: list[Key]
    cells: list[list[Cell | None]]
    notes: list[str]


def runs_table(runs: Sequence[Run], columns: str | None = None) -> RunTable:
    """Average runs over seeds.

    Args:
        runs: certified or not.
        columns: names of numbers with commas between them, as ``clean,certified@0.5``; clean,
            certified and attacked accuracy at every radius by default, of the held-out images
            where there is no other.

    Raises:
        UsageError: there are no runs, or none has a number that is asked for.
    """
    groups = grouped(runs)
    if not groups:
        raise UsageError("no runs to make a table of: onelip train or onelip sweep makes some")
    known = in_order({key for run in runs for key in run.numbers})
    chosen = [key for key in known if key[0] in ("clean", "certified", ATTACKED)]
    chosen = chosen or [key for key in known if key[0].startswith("held-out-")]
    if columns is not None:
        chosen = [find_key(name, known) for name in columns.split(",")]
    return RunTable(
        groups=groups,
        settings=[*groups[0].differing],
        columns=chosen,
        cells=[[_cell(group.runs, key) for key in chosen] for group in groups],
        notes=_notes(groups, chosen),
    )


def run_table_text(table: RunTable, form: str) -> str:
    """Write a table in one of ``FORMATS``."""
    return FORMATS[form](table)


def _cell(runs: list[Run], key: Key) -> Cell | None:
    values = [run.numbers[key] for run in runs if key in run.numbers]
    if len(values) < len(runs):
        return None
    return Cell(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def _notes(groups: list[Group], columns: list[Key]) -> list[str]:
    """Say what is common to all rows, and what a careless reader would miss."""
    runs = [run for group in groups for run in group.runs]
    sizes = sorted({run.test_images for run in runs if run.test_images})
    notes = []
    shares = [key[0].startswith("held-out-") for key in columns if _is_share(key)]
    if not all(shares):
        notes.append(f"per cent of {' or '.join(map(str, sizes)) or 'the'} test images")
    if any(shares):
        counts = sorted({int(run.identity["validation"]) for run in runs})
        notes.append(f"held out: per cent of {' or '.join(map(str, counts))} held-out images")
    if any(len(group.runs) > 1 for group in groups):
        notes.append("mean ± sample standard deviation over seeds")
    shared = {name: {str(run.identity[name]) for run in runs} for name in _COMMON}
    if {key[0] for key in columns} & {"certified", "held-out-certified"}:
        notes += [f"certified: {proof}" for proof in _only(shared["proof"])]
    if any(key[0] == ATTACKED for key in columns):
        notes += [f"attacked: {attack}" for attack in _only(shared["attacks"])]
    notes += [data for data in _only(shared["data"]) if data]
    notes += [f"trained: {trained}" for trained in _only(shared["trained"]) if trained != "whole"]
    for group in groups:
        twice = [
            seed for seed, count in Counter(run.seed for run in group.runs).items() if count > 1
        ]
        notes += [f"{group.label}: seed {seed} more than once" for seed in twice]
    if len({len(group.runs) for group in groups}) == 1:
        seeds = {", ".join(str(run.seed) for run in group.runs) for group in groups}
        notes += [f"seeds {only}" for only in _only(seeds)]
    return notes


def _only(values: set[str]) -> list[str]:
    return [*values] if len(values) == 1 else []


def _is_share(key: Key) -> bool:
    return key[0].removeprefix("held-out-") in ("clean", "certified") or bool(key[1])


def _heading(key: Key) -> str:
    kind, radius = key
    words = kind.replace("-", " ") if kind.startswith("held-out") else kind.replace("_", " ")
    return f"{words} at {format_eps(radius)}" if radius else words


def _headings(table: RunTable) -> list[str]:
    first = [name.rpartition(".")[2] for name in table.settings]
    first = table.settings if len(set(first)) < len(first) else first
    return [*(first or ["recipe"]), "seeds", *map(_heading, table.columns)]


def _rows(table: RunTable, plus_minus: str) -> list[list[str]]:
    """Rows of text: what differs, the number of seeds, means with their deviation."""
    rows = []
    for group, cells in zip(table.groups, table.cells, strict=True):
        first = [*group.differing.values()] or [group.label]
        rows.append([*first, str(len(group.runs)), *(_written(c, plus_minus) for c in cells)])
    return rows


def _written(cell: Cell | None, plus_minus: str) -> str:
    if cell is None:
        return "-"
    return f"{cell.mean:.2f}" + ("" if cell.std is None else f"{plus_minus}{cell.std:.2f}")


def _text(table: RunTable) -> str:
    rows = [_headings(table), *_rows(table, " ±")]
    left = len(rows[0]) - len(table.columns) - 1
    return "\n".join([columns_text(rows, left), "", *table.notes])


def _markdown(table: RunTable) -> str:
    headings = _headings(table)
    left = len(headings) - len(table.columns) - 1
    rule = ["---"] * left + ["---:"] * (len(headings) - left)
    rows = [[cell.replace("|", r"\|") for cell in row] for row in _rows(table, " ± ")]
    lines = ["| " + " | ".join(row) + " |" for row in (headings, rule, *rows)]
    return "\n".join([*lines, "", "; ".join(table.notes)])


def _latex(table: RunTable) -> str:
    r"""Write a ``tabular`` for the package booktabs; notes are comments."""
    headings = _headings(table)
    left = len(headings) - len(table.columns) - 1
    lines = [f"% {note}" for note in [*table.notes, r"needs \usepackage{booktabs}"]]
    lines += [rf"\begin{{tabular}}{{{'l' * left}{'r' * (len(headings) - left)}}}", r"\toprule"]
    lines += [" & ".join(map(_escaped, headings)) + r" \\", r"\midrule"]
    rows = _rows(table, "±")
    lines += [
        " & ".join(_escaped(cell).replace("±", r" $\pm$ ") for cell in row) + r" \\" for row in rows
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _csv(table: RunTable) -> str:
    """Write every digit: settings, seeds, then mean and deviation of each number."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [key_text(key) for key in table.columns]
    numbers = [f"{name}{what}" for name in names for what in ("", " std")]
    writer.writerow([*(table.settings or ["recipe"]), "runs", "seeds", *numbers])
    for group, cells in zip(table.groups, table.cells, strict=True):
        seeds = " ".join(str(run.seed) for run in group.runs)
        row = [*([*group.differing.values()] or [group.label]), len(group.runs), seeds]
        for cell in cells:
            row += ["", ""] if cell is None else [repr(cell.mean), _or_empty(cell.std)]
        writer.writerow(row)
    return out.getvalue().rstrip("\n")


def _or_empty(value: float | None) -> str:
    return "" if value is None else repr(value)


FORMATS = {"text": _text, "csv": _csv, "latex": _latex, "markdown": _markdown}
"""Forms of a table of runs, by name."""
