"""``onelip export``: the network of a run as a file, with or without certified radii."""

from pathlib import Path
from typing import Any

from onelip.cli.arguments import add_average_option, new_parser
from onelip.errors import UsageError
from onelip.experiments import classification
from onelip.method_names import CERTIFICATE_METHODS

_FORMATS = ("onnx", "pt2", "safetensors")


def run(arguments: list[str]) -> None:
    """Write a file."""
    options = _parsed(arguments)
    out = options.out
    if out is None:
        if options.format is None:
            raise UsageError("onelip export RUN needs -o FILE, or --format " + ", ".join(_FORMATS))
        out = options.run / f"network.{options.format}"
    elif options.format is not None and out.suffix != f".{options.format}":
        raise UsageError(f"-o {out} does not end in .{options.format}, as --format says")
    folder = classification.ClassificationFolder.open(options.run)
    text = classification.export_run(
        folder,
        out,
        with_radius=options.with_radius,
        method=options.method,
        reach=options.reach,
        average=options.average,
    )
    print(text)


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("export")
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("-o", "--out", type=Path, help="file to write; RUN/network.FORMAT if open")
    form = "of the file; that of its name by default"
    parser.add_argument("--format", choices=_FORMATS, help=form)
    radius = "let the graph return the certified radius of each sample beside its logits"
    parser.add_argument("--with_radius", "--with-radius", action="store_true", help=radius)
    known = ", ".join(CERTIFICATE_METHODS)
    parser.add_argument("--method", help=f"of the radii, of {known}; the recipe's by default")
    reach = "of the radii: length of the longest input; their level is float then"
    parser.add_argument("--reach", type=float, help=reach)
    add_average_option(parser)
    return parser.parse_args(arguments)
