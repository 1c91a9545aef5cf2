"""Cache of decoded data sets on disk; a file that cannot be used is rebuilt."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from onelip.atomic_files import atomic_write

_FORMAT = "2"  # raise it when decoding changes


class Stored(NamedTuple):
    """Tensors by name, and facts that JSON can hold."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def load_or_build(
    name: str,
    sources: Sequence[Path],
    build: Callable[[], Stored],
    usable: Callable[[Stored], bool],
    options: str = "",
) -> Stored:
    """Return the cached result of ``build``.

    Args:
        name: begins the name of the file.
        sources: files that the result depends on.
        build: computes it.
        usable: whether a stored result has the form that is asked.
        options: whatever else it depends on.
    """
    path = _folder() / f"{name}-{_fingerprint(sources, options)}.safetensors"
    cached = _read(path)
    if cached is not None and usable(cached):
        return cached
    built = build()
    with contextlib.suppress(OSError):  # a read-only cache costs time, not the run
        _write(path, built)
    return built


def _folder() -> Path:
    """Folder of the cache: ``$ONELIP_CACHE``, or ``~/.cache/onelip``."""
    return Path(os.environ.get("ONELIP_CACHE") or "~/.cache/onelip").expanduser()


def _fingerprint(sources: Sequence[Path], options: str) -> str:
    """Hash of the options, and of the paths, sizes and times of change of the sources."""
    digest = hashlib.sha256(f"{_FORMAT}\0{options}".encode())
    for source in sources:
        resolved = source.resolve()
        status = resolved.stat()
        digest.update(b"\0" + os.fsencode(resolved))
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return digest.hexdigest()[:20]


def _read(path: Path) -> Stored | None:
    """Return what is stored, or None if the file is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as stored:
            facts = json.loads((stored.metadata() or {})["facts"])
            return Stored({name: stored.get_tensor(name) for name in stored.keys()}, facts)  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError):
        return None


def _write(path: Path, built: Stored) -> None:
    """Write to a temporary name first, so that no reader gets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in built.tensors.items()}
    data = save(tensors, metadata={"facts": json.dumps(built.facts)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
