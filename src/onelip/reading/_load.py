"""Files of networks, by their suffix."""

from pathlib import Path

from onelip.chains import Chain
from onelip.errors import UsageError
from onelip.reading.aten.program import read_program
from onelip.reading.onnx.file import read_onnx


def load(path: str | Path, *, trust: bool = False) -> Chain:
    """The network of a file as a chain; ``chain.forward`` computes it.

    Args:
        path: ``.pt2``, written by ``torch.export.save``, or ``.onnx``.
        trust: open parts of a ``.pt2`` file that may run code.

    Raises:
        UnboundedModuleError: nothing is proved for a part; the message names it.
        UsageError: the file is missing or cannot be read.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".pt2":
        return read_program(path, trust=trust)
    if suffix != ".onnx":
        raise UsageError(
            f"{path} is no .pt2 or .onnx file: write one with torch.export.save or "
            "torch.onnx.export"
        )
    return read_onnx(path)
