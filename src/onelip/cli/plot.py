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
    folders = [classification.ClassificationFolder.open(path) for path in options.runs]
    if options.singular_values:
        print(classification.plot_singular_values(folders[0], options.out))
    else:
        print(classification.plot(folders, options.out))


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("plot")
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--out", type=Path, help="file of the figure")
    parser.add_argument(
        "--singular_values", action="store_true", help="of each layer, before and after training"
    )
    return parser.parse_args(arguments)
