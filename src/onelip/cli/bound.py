"""``onelip bound``: the proved Lipschitz bounds of a run, or of a file with a network."""

import json
from pathlib import Path
from typing import Any

from onelip.cli.arguments import new_parser, stored_array
from onelip.errors import UsageError
from onelip.experiments import classification
from onelip.method_names import BOUND_METHODS


def run(arguments: list[str]) -> None:
    """Print the bounds."""
    options = _parsed(arguments)
    methods = tuple(name.strip() for name in options.methods.split(",") if name.strip())
    if options.file.suffix.lower() in (".pt2", ".onnx", ".safetensors"):
        result = classification.bound_file(
            options.file,
            seconds=options.seconds,
            methods=methods,
            trust=options.trust,
            factory=options.factory,
            input_shape=_sides(options.input_shape),
            input=options.input,
            output=options.output,
            shapes={name: _size(name, size) for name, size in _pairs("shape", options.shape)},
            fixed={name: _array(name, given) for name, given in _pairs("fixed", options.fixed)},
        )
    else:
        folder = classification.ClassificationFolder.open(options.file)
        result = classification.bound_run(folder, seconds=options.seconds, methods=methods)
    print(json.dumps(result, indent=1) if options.json else classification.bound_text(result))


def _pairs(option: str, text: str) -> list[tuple[str, str]]:
    """Names and what is said of them, from ``name=value,name=value``; names may hold ``=``."""
    pairs = [part.strip().rpartition("=") for part in text.split(",") if part.strip()]
    for name, _, value in pairs:
        if not name or not value:
            raise UsageError(f"--{option} takes name=value, or several with commas, got {text!r}")
    return [(name, value) for name, _, value in pairs]


def _size(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--shape: the size of {name} is a whole number, got {text!r}") from None


def _sides(text: str | None) -> tuple[int, ...] | None:
    """Sides of an input, from ``3,32,32``."""
    try:
        return None if text is None else tuple(int(side) for side in text.split(","))
    except ValueError:
        message = f"--input-shape takes whole numbers with commas, as 3,32,32, got {text!r}"
        raise UsageError(message) from None


def _array(name: str, text: str) -> Any:
    """A number, or what a ``.npy`` file holds."""
    if text.endswith(".npy"):
        return stored_array("fixed", text)
    try:
        return float(text)
    except ValueError:
        message = f"--fixed: {name} is a number or a .npy file, got {text!r}"
        raise UsageError(message) from None


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("bound")
    parser.add_argument("file", type=Path, help="run folder, .pt2, .onnx or .safetensors")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all methods together")
    known = ", ".join(BOUND_METHODS)
    parser.add_argument("--methods", default="", help=f"to try, of {known}; all by default")
    trust = "open parts of a .pt2 file that may run code, because you know who wrote it"
    parser.add_argument("--trust", action="store_true", help=trust)
    parser.add_argument("--input", help="of an .onnx file: the tensor to start from, by name")
    parser.add_argument("--output", help="of an .onnx file: the tensor to end with, by name")
    sizes = "of an .onnx file: sizes of open dimensions, as in height=48,width=192"
    parser.add_argument("--shape", default="", help=sizes)
    others = "of an .onnx file: the other inputs, as in state=0,rate=rate.npy"
    parser.add_argument("--fixed", default="", help=others)
    build = "of a .safetensors file: what builds the module, as package.module:function"
    parser.add_argument("--factory", help=build)
    one = "of a .safetensors file: shape of one input, as 3,32,32"
    parser.add_argument("--input_shape", "--input-shape", help=one)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)
