"""Files of networks, by their suffix."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onelip.chains import Chain
from onelip.errors import UsageError
from onelip.reading.aten.program import read_program
from onelip.reading.onnx.file import read_onnx


def load(
    path: str | Path,
    *,
    trust: bool = False,
    input: str | None = None,
    output: str | None = None,
    shapes: Mapping[str, int] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> Chain:
    """The network of a file as a chain; ``chain.forward`` computes it.

    Args:
        path: ``.pt2``, written by ``torch.export.save``, or ``.onnx``.
        trust: open parts of a ``.pt2`` file that may run code.
        input: of an ONNX file, as the next three: where the chain starts; see ``read_onnx``.
        output: where it ends.
        shapes: sizes of open dimensions, by name.
        fixed: arrays for the other inputs, by name.

    Raises:
        UnboundedModuleError: nothing is proved for a part; the message names it.
        UsageError: the file is missing or cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".pt2":
        if input or output or shapes or fixed:
            raise UsageError(
                f"{path}: inputs and outputs are chosen in .onnx files; a .pt2 file has one of each"
            )
        return read_program(path, trust=trust)
    if suffix != ".onnx":
        raise UsageError(
            f"{path} is no .pt2 or .onnx file: write one with torch.export.save or "
            "torch.onnx.export"
        )
    return read_onnx(path, input=input, output=output, shapes=shapes, fixed=fixed)
