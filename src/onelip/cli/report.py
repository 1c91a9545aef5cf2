"""``onelip report``: one HTML page of runs."""

import sys
from pathlib import Path
from typing import Any

from onelip.cli.arguments import new_parser
from onelip.errors import UsageError
from onelip.experiments import classification


def run(arguments: list[str]) -> None:
    """Write the page, and print its file."""
    options = _parsed(arguments)
    from onelip.experiments.recipes import RECIPES

    runs = classification.find_runs(options.runs)
    if not runs:
        raise UsageError(f"no runs in {options.runs[0]}: onelip train or onelip sweep makes some")
    page = classification.write_report(
        runs,
        options.out,
        options.data,
        recipes=RECIPES,
        prove=options.prove,
        say=lambda line: print(f"onelip: {line}", file=sys.stderr),
    )
    print(page)


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("report")
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders, or folders of them such as a sweep"
    )
    out = "file of the page; report.html in the folder of a single run"
    parser.add_argument("--out", type=Path, help=out)
    parser.add_argument("--data", type=Path, help="place of the data, if it is another now")
    prove = "put a proof and its checker into the page, which proves its numbers again; takes Go"
    parser.add_argument("--prove", action="store_true", help=prove)
    return parser.parse_args(arguments)
