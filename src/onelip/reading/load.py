"""Files of networks, by their suffix."""

from pathlib import Path

from onelip.chains import Chain
from onelip.errors import UsageError
from onelip.reading.onnx_file import read_onnx
from onelip.reading.program import read_program


def load(path: str | Path) -> Chain:
    """The network of a file as a chain; ``chain.forward`` computes it.

    Args:
        path: ``.pt2``, written by ``torch.export.save``, or ``.onnx``.

    Raises:
        UnboundedModuleError: nothing is proved for a part; the message names it.
        UsageError: the file is missing or cannot be read.
    """
    readers = {".pt2": read_program, ".onnx": read_onnx}
    suffix = Path(path).suffix.lower()
    if suffix not in readers:
        raise UsageError(
            f"{path} is no .pt2 or .onnx file: write one with torch.export.save or "
            "torch.onnx.export"
        )
    return readers[suffix](path)
