"""``onelip plot``: figures of runs."""

from pathlib import Path
from typing import Any

from onelip.cli.arguments import new_parser
from onelip.errors import UsageError
from onelip.experiments import classification


def run(arguments: list[str]) -> None:
    """Draw runs, and print the file of the figure."""
    options = _parsed(arguments)
    if options.singular_values and len(options.runs) > 1:
        raise UsageError("--singular-values draws one run: name one folder")
    if options.singular_values:
        folder = classification.ClassificationFolder.open(options.runs[0])
        print(classification.plot_singular_values(folder, options.out))
        return
    folders = [run.folder for run in classification.find_runs(options.runs)]
    if not folders:
        raise UsageError(f"no runs in {options.runs[0]}: onelip train or onelip sweep makes some")
    print(classification.plot(folders, options.out))


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("plot")
    parser.add_argument(
        "runs", type=Path, nargs="+", help="run folders, or folders of them such as a sweep"
    )
    parser.add_argument("--out", type=Path, help="file of the figure: .png, .pdf or .svg")
    parser.add_argument(
        "--singular_values", action="store_true", help="of each layer, before and after training"
    )
    return parser.parse_args(arguments)
