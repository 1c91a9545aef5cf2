"""``onelip bound``: the proved Lipschitz bounds of a run, or of a file with a network."""

import json
from pathlib import Path
from typing import Any

from onelip.cli.arguments import new_parser
from onelip.experiments import classification
from onelip.method_names import BOUND_METHODS


def run(arguments: list[str]) -> None:
    """Print the bounds."""
    options = _parsed(arguments)
    methods = tuple(name.strip() for name in options.methods.split(",") if name.strip())
    if options.file.suffix.lower() in (".pt2", ".onnx"):
        result = classification.bound_file(
            options.file, seconds=options.seconds, methods=methods, trust=options.trust
        )
    else:
        folder = classification.ClassificationFolder.open(options.file)
        result = classification.bound_run(folder, seconds=options.seconds, methods=methods)
    print(json.dumps(result, indent=1) if options.json else classification.bound_text(result))


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("bound")
    parser.add_argument("file", type=Path, help="run folder, .pt2 or .onnx file")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all methods together")
    known = ", ".join(BOUND_METHODS)
    parser.add_argument("--methods", default="", help=f"to try, of {known}; all by default")
    trust = "open parts of a .pt2 file that may run code, because you know who wrote it"
    parser.add_argument("--trust", action="store_true", help=trust)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)
