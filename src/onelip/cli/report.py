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
        say=lambda line: print(f"onelip: {line}", file=sys.stderr),
        prove=options.prove,
        checker=options.checker,
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
    proves = (
        "put a proof of the network and of some test samples (100), and the checker, into the "
        "page, which proves its own numbers where it is read"
    )
    parser.add_argument("--prove", type=int, nargs="?", const=100, metavar="SAMPLES", help=proves)
    checker = "page that make checker-page wrote; by default it is built, with Go"
    parser.add_argument("--checker", type=Path, help=checker)
    return parser.parse_args(arguments)
