"""Texts inside ``.pt2``, ``.onnx``, ``.safetensors`` files, which change nothing of a network."""

import zipfile
from pathlib import Path
from typing import Any

from safetensors import safe_open

from onelip.errors import UsageError, missing_extra


def write_text(path: Path, key: str, text: str) -> None:
    """Put a text into a file that was just written.

    Args:
        path: of the file.
        key: its name: in an ONNX file's metadata, or of an extra file of a ``.pt2``.
        text: replaces one of the same key.
    """
    if path.suffix == ".pt2":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        folder = next(iter(parts)).partition("/")[0]
        parts[f"{folder}/extra/{key}"] = text.encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return
    onnx = _onnx()
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {**_props(model), key: text})
    onnx.save(model, path)


def read_text(path: Path, key: str) -> str:
    """Text of a key in a file; empty where there is none.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        if path.suffix.lower() == ".onnx":
            return _props(_onnx().load(path)).get(key, "")
        if path.suffix.lower() == ".safetensors":
            with safe_open(path, framework="numpy") as file:
                return str((file.metadata() or {}).get(key, ""))
        with zipfile.ZipFile(path) as archive:  # the text alone: nothing of it is opened by torch
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{key}")]
            return archive.read(names[0]).decode(errors="replace") if names else ""
    except UsageError:
        raise
    except Exception as error:  # of a file that is damaged
        raise UsageError(f"{path} cannot be read: {error}") from error


def _props(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx") from error
    return onnx
