"""Kinds of files, by their suffix."""

from pathlib import Path

from onelip.errors import UsageError

_WRITERS = {
    ".pt2": "torch.export.save",
    ".onnx": "torch.onnx.export",
    ".safetensors": "safetensors.torch.save_file",
}


def suffix_of(path: Path, known: tuple[str, ...]) -> str:
    """Return the suffix of a file in lower case.

    Raises:
        UsageError: it is none of those that are known; the message says how to write one.
    """
    suffix = path.suffix.lower()
    if suffix not in known:
        writers = " or ".join(_WRITERS[name] for name in known)
        raise UsageError(f"{path} is no {' or '.join(known)} file: write one with {writers}")
    return suffix
