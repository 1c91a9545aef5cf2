"""``onelip predict``: classes and certified radii of images and arrays."""

from pathlib import Path
from typing import Any

from onelip.cli.arguments import add_average_option, new_parser
from onelip.experiments import classification
from onelip.method_names import CERTIFICATE_METHODS


def run(arguments: list[str]) -> None:
    """Print a table."""
    options = _parsed(arguments)
    folder = classification.ClassificationFolder.open(options.run)
    text = classification.predict_run(
        folder,
        options.files,
        method=options.method,
        level=options.level,
        out=options.out,
        average=options.average,
    )
    print(text)


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("predict")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("files", type=Path, nargs="+", help="images, or .npy and .npz files")
    known = ", ".join(CERTIFICATE_METHODS)
    parser.add_argument("--method", help=f"one of {known}; that of the recipe by default")
    parser.add_argument(
        "--level", choices=("real", "float"), default="real", help="float: rounding included"
    )
    parser.add_argument("--out", type=Path, help="write the table: .csv, .json or .parquet")
    add_average_option(parser)
    return parser.parse_args(arguments)
