"""Cache of decoded data sets on disk; a file that cannot be used is rebuilt."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from onelip.atomic_files import atomic_write
from onelip.data.pixels import Decoded, Shape

_FORMAT = "1"  # raise it when decoding changes


def load_or_build(
    name: str, split: str, sources: Sequence[Path], shape: Shape, build: Callable[[], Decoded]
) -> Decoded:
    """Return the cached result of ``build``, which depends on the files ``sources``."""
    path = _folder() / f"{name}-{split}-{_fingerprint(sources)}.safetensors"
    cached = _read(path, shape)
    if cached is not None:
        return cached
    built = build()
    with contextlib.suppress(OSError):  # a read-only cache costs time, not the run
        _write(path, built)
    return built


def _folder() -> Path:
    """Folder of the cache: ``$ONELIP_CACHE``, or ``~/.cache/onelip``."""
    return Path(os.environ.get("ONELIP_CACHE") or "~/.cache/onelip").expanduser()


def _fingerprint(sources: Sequence[Path]) -> str:
    """Hash of the paths, sizes and times of change of the sources."""
    digest = hashlib.sha256(_FORMAT.encode())
    for source in sources:
        resolved = source.resolve()
        status = resolved.stat()
        digest.update(f"\0{resolved}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:20]


def _read(path: Path, shape: Shape) -> Decoded | None:
    """Return the stored images, or None if the file is missing, damaged or of another shape."""
    try:
        with safe_open(path, framework="pt") as stored:
            images, labels = stored.get_tensor("images"), stored.get_tensor("labels")
            jpeg = (stored.metadata() or {})["jpeg"] == "yes"
    except (OSError, SafetensorError, KeyError):
        return None
    usable = (
        images.dtype == torch.uint8
        and labels.dtype == torch.int64
        and images.shape == (len(labels), *shape)
    )
    return Decoded(images, labels, jpeg) if usable else None


def _write(path: Path, decoded: Decoded) -> None:
    """Write to a temporary name first, so that no reader gets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save(
        {"images": decoded.images, "labels": decoded.labels},
        metadata={"jpeg": "yes" if decoded.jpeg else "no"},
    )
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
