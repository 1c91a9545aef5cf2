"""Claims that travel inside the files of a network, beside a digest of what they are claimed of."""

import hashlib
import json
from pathlib import Path
from typing import Any

from onelip.errors import UsageError
from onelip.texts_inside import read_text, write_text

KEY = "onelip.proof"
"""Name of the entry: in the metadata of an ONNX or safetensors file, or of an extra file of a
``.pt2``."""


def digest_of(outline: list[Any]) -> str:
    """SHA-256 of a network's maps and tensors, which metadata do not change."""
    return hashlib.sha256(json.dumps(outline, sort_keys=True).encode()).hexdigest()


def write_inside(path: Path, claims: dict[str, str]) -> None:
    """Put claims into a ``.pt2`` or an ``.onnx`` file that was just written.

    Args:
        path: of the file.
        claims: names and texts, ``network`` the digest of what they are claimed of.
    """
    write_text(path, KEY, as_text(claims))


def as_text(claims: dict[str, str]) -> str:
    """Claims as they stand in a file."""
    return json.dumps(claims, sort_keys=True)


def read_inside(path: Path) -> dict[str, str]:
    """Claims inside a file; empty where there are none."""
    text = read_text(path, KEY)
    if not text:
        return {}
    try:
        claims = json.loads(text)
        found = {str(name): str(value) for name, value in claims.items()}
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{path}: its claims cannot be read") from error
    return found
