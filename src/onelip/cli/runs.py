"""``onelip runs``: lists runs, filters, sorts and compares them."""

import sys
from pathlib import Path
from typing import Any

from onelip.cli.arguments import new_parser
from onelip.experiments.classification.comparison import find_runs, matching
from onelip.experiments.tables.list_of_runs import runs_list, sorted_by


def run(arguments: list[str]) -> None:
    """Print a line for each run, with what differs between them."""
    options = _parsed(arguments)
    skipped: list[str] = []
    runs = find_runs(options.folders or [Path("runs")], skipped.append)
    runs = matching(runs, options.where)
    if options.sort is not None:
        runs = sorted_by(runs, options.sort)
    print(runs_list(runs, options.columns))
    for line in skipped:
        print(f"onelip: left out: {line}", file=sys.stderr)


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("runs")
    parser.add_argument("folders", type=Path, nargs="*", help="of runs, or sweeps; runs by default")
    add_where(parser)
    by = "setting, or number such as certified@0.5, the largest first"
    parser.add_argument("--sort", help=by)
    parser.add_argument("--columns", help="numbers, as in clean,certified@0.5,held-out-clean")
    return parser.parse_args(arguments)


def add_where(parser: Any) -> None:
    """Add the option that chooses among runs."""
    where = "only runs with these settings: recipe=mnist seed=0,1 state=finished"
    parser.add_argument("--where", nargs="+", default=[], metavar="NAME=VALUE", help=where)
