"""``onelip certify``: certified radii of every test image of a run."""

from pathlib import Path
from typing import Any

from onelip.cli.arguments import add_average_option, classification_run
from onelip.cli.shard_options import add_shard_options, certify_in_shards, refuse_shard_options
from onelip.errors import UsageError
from onelip.experiments import classification
from onelip.method_names import CERTIFICATE_METHODS


def run(arguments: list[str]) -> None:
    """Certify a run, or the images of a file in shards."""
    folder, options = classification_run("certify", arguments, _add_options)
    if options.shards is not None and options.average is not None:
        raise UsageError("--average is not for shards: leave one of them out")
    if options.shards is not None:
        certify_in_shards(folder, options)
        return
    refuse_shard_options(options)
    if options.out is not None:
        classification.check_table(options.out)
    certified = classification.certify_run(
        folder,
        options.data,
        method=options.method,
        level=options.level,
        precision=options.precision,
        average=options.average,
    )
    print(classification.table(folder.read(), folder.recipe))
    if options.out is not None:
        written = classification.write_radii(folder, certified, options.out)
        print("".join(f"\nwritten {path}" for path in written))


def _add_options(parser: Any) -> None:
    known = ", ".join(CERTIFICATE_METHODS)
    parser.add_argument("--method", help=f"one of {known}; that of the recipe by default")
    parser.add_argument(
        "--level", choices=("real", "float"), default="real", help="float: rounding included"
    )
    parser.add_argument(
        "--precision",
        type=int,
        help="bits in which the network runs: 32 or 64; 64 for tables by default",
    )
    parser.add_argument("--out", type=Path, help="write the radii: .csv, .json or .parquet")
    add_average_option(parser)
    add_shard_options(parser)
