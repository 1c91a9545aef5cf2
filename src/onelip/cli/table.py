"""``onelip table``: runs averaged over seeds, or a published table beside our stored runs."""

import sys
from pathlib import Path
from typing import Any

from onelip.cli.arguments import new_parser
from onelip.cli.runs import add_where
from onelip.errors import UsageError
from onelip.experiments.classification.comparison import find_runs, matching
from onelip.experiments.tables.of_runs import FORMATS, run_table_text, runs_table
from onelip.experiments.tables.published import read_table
from onelip.experiments.tables.text import table_text

_OF_RUNS = ("format", "columns", "where")


def run(arguments: list[str]) -> None:
    """Print a table of runs, if paths are named, or a published one."""
    options = _parsed(arguments)
    if any(_is_path(name) for name in options.names):
        _print_runs(options)
        return
    for name in _OF_RUNS:
        if getattr(options, name):
            raise UsageError(f"--{name} is for tables of runs: name their folders, as in runs")
    if len(options.names) > 1:
        raise UsageError(
            f"{options.names[0]} is no folder of runs: name folders, or one published table"
        )
    stored = read_table(options.names[0] if options.names else None, options.tables)
    print(stored.as_json() if options.json else table_text(stored))


def _is_path(name: str) -> bool:
    """Check whether a name is that of a folder with runs, and not of a table."""
    path = Path(name)
    return "/" in name or any(path.rglob("metrics.json"))


def _print_runs(options: Any) -> None:
    if options.json:
        raise UsageError(f"--json is for published tables: --format {', '.join(FORMATS)}")
    runs = find_runs(
        [Path(name) for name in options.names],
        lambda line: print(f"onelip: left out: {line}", file=sys.stderr),
    )
    runs = matching(runs, options.where)
    open_ones = [run for run in runs if run.state in ("begun", "not certified")]
    for run_left in open_ones:
        print(f"onelip: left out: {run_left.path} is {run_left.state}", file=sys.stderr)
    table = runs_table([run for run in runs if run not in open_ones], options.columns)
    print(run_table_text(table, options.format or "text"))


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("table")
    names = "run folders, or folders of them such as a sweep; or a published table by its name"
    parser.add_argument("names", nargs="*", help=names)
    parser.add_argument("--format", choices=tuple(FORMATS), help="of a table of runs")
    columns = "numbers of a table of runs, as in clean,certified@0.5,attacked@0.5"
    parser.add_argument("--columns", help=columns)
    add_where(parser)
    parser.add_argument("--tables", type=Path, help="folder of the published tables")
    parser.add_argument("--json", action="store_true", help="print a published table as JSON")
    return parser.parse_args(arguments)
