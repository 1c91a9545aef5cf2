"""Claims that travel inside the files of a network, beside a digest of what they are claimed of."""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from onelip.errors import UsageError, missing_extra

KEY = "onelip.proof"
"""Name of the entry: in an ONNX file's metadata, or of an extra file of a ``.pt2``."""


def digest_of(outline: list[Any]) -> str:
    """SHA-256 of a network's maps and tensors, which metadata do not change."""
    return hashlib.sha256(json.dumps(outline, sort_keys=True).encode()).hexdigest()


def write_inside(path: Path, claims: dict[str, str]) -> None:
    """Put claims into a ``.pt2`` or an ``.onnx`` file that was just written.

    Args:
        path: of the file.
        claims: names and texts, ``network`` the digest of what they are claimed of.
    """
    text = json.dumps(claims, sort_keys=True)
    if path.suffix == ".pt2":
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        folder = next(iter(parts)).partition("/")[0]
        parts[f"{folder}/extra/{KEY}"] = text.encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return
    onnx = _onnx()
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {**_props(model), KEY: text})
    onnx.save(model, path)


def read_inside(path: Path) -> dict[str, str]:
    """Claims inside a file; empty where there are none."""
    if path.suffix == ".pt2":
        with zipfile.ZipFile(path) as archive:  # the text alone: nothing of it is opened by torch
            names = [name for name in archive.namelist() if name.endswith(f"/extra/{KEY}")]
            text = archive.read(names[0]).decode(errors="replace") if names else ""
    else:
        text = _props(_onnx().load(path)).get(KEY, "")
    if not text:
        return {}
    try:
        claims = json.loads(text)
        found = {str(name): str(value) for name, value in claims.items()}
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{path}: its claims cannot be read") from error
    return found


def _props(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", "onnx") from error
    return onnx
