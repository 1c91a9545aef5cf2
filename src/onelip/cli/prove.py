"""``onelip prove``: a bundle with a network, its constants, and radii, that others can check."""

from pathlib import Path
from typing import Any

from onelip.cli.arguments import add_average_option, new_parser, stored_array
from onelip.errors import UsageError
from onelip.experiments import classification


def run(arguments: list[str]) -> None:
    """Write a bundle."""
    parser = new_parser("prove")
    parser.add_argument("file", type=Path, help="run folder, .pt2 or .onnx")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--samples", type=int, default=100, help="of a run: test images to certify")
    parser.add_argument("--data", type=Path, help="of a run: folder of the data set")
    inputs = "of a file: a .npy file with the samples to certify, in float32 or float64"
    parser.add_argument("--inputs", type=Path, help=inputs)
    files = "of a run: files of the network to put beside the proof, as in onnx,pt2"
    parser.add_argument("--formats", default="", help=files)
    ways = "product of norms, or lipsdp, which is far less for a plain dense network"
    parser.add_argument("--method", choices=("product", "lipsdp"), default="product", help=ways)
    levels = "float: radii hold for the network as it runs in float32, rounding included; of a run"
    parser.add_argument("--level", choices=("real", "float"), default="real", help=levels)
    wide = (
        "of a run: sums of linear layers in float64, which makes level float cost next to nothing"
    )
    parser.add_argument("--accumulate", action="store_true", help=wide)
    parser.add_argument("--seconds", type=float, help="for the search of lipsdp")
    trust = "open parts of a .pt2 file that may run code, because you know who wrote it"
    parser.add_argument("--trust", action="store_true", help=trust)
    add_average_option(parser)
    options: Any = parser.parse_args(arguments)
    formats = [name.strip() for name in options.formats.split(",") if name.strip()]
    how = {"method": options.method, "seconds": options.seconds, "level": options.level}
    if options.file.suffix.lower() in (".pt2", ".onnx"):
        if options.accumulate:
            raise UsageError("--accumulate is for runs: a file is executed as it is")
        if options.average is not None:
            raise UsageError("--average is for runs: onelip export RUN --average writes a file")
        x = None if options.inputs is None else _samples(options.inputs)
        record = classification.prove_file(options.file, options.out, x, trust=options.trust, **how)
    else:
        folder = classification.ClassificationFolder.open(options.file)
        record = classification.prove_run(
            folder,
            options.out,
            options.data,
            options.samples,
            accumulate=options.accumulate,
            average=options.average,
            formats=formats,
            **how,
        )
    print(classification.proof_text(record, options.out))


def _samples(path: Path) -> Any:
    """The tensor of a ``.npy`` file in float32 or float64."""
    import torch

    array = stored_array("inputs", path)
    if array.dtype.name not in ("float32", "float64"):
        raise UsageError(f"--inputs: float32 or float64 is asked, {path} has {array.dtype}")
    return torch.from_numpy(array)
