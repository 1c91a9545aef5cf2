"""Exported programs of strangers: what of a ``.pt2`` file is opened, so that it cannot run code.

``torch.export.load`` unpickles some parts of an archive, evaluates symbolic sizes as Python, looks
operators up by any name under ``torch``, and loads compiled libraries. A network of plain tensors
needs none of that. So the archive is read here, each part is held against what such a network
consists of, and only a copy made of those parts is given to torch.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from onelip.errors import UsageError

_PLAIN = re.compile(
    r"(archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|extra/[\w.-]+)"  # texts, which nothing opens unless it is asked to
)
_OPERATORS = re.compile(
    r"torch\.ops\.aten\.(?!from_file)\w+\.\w+"
    r"|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"  # a graph of the file
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|neg|mod|pow|eq|ne|lt|le|gt|ge|and_)"
)
_SIZES = re.compile(  # no groups that capture: Python 3.11 loses them behind *+
    r"(?:Symbol\('[su]\d++'(?:, (?:positive|integer|nonnegative)=True)*+\)|Integer\(-?\d++\)|\d++"
    r"|(?:Add|Mul|Max|Min|Mod|PythonMod|FloorDiv|CeilDiv)\(|true|false|[su]\d++|[-+*(), ])*+"
)
_TREES = {"builtins.tuple", "builtins.list", "builtins.dict"}
_LARGEST = 2**32  # bytes of all parts


def checked_archive(path: Path) -> io.BytesIO:
    """A copy of a ``.pt2`` archive that holds nothing but a graph of operators, and tensors.

    Args:
        path: what ``torch.export.save`` wrote.

    Raises:
        UsageError: it is no archive, or a part of it could run code when it is opened.
    """
    try:
        parts = _parts(path)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise UsageError(
            f"{path} cannot be read as a program that torch.export.save wrote: {error}"
        ) from error
    for reason in _objections(parts):
        raise UsageError(
            f"{path}: {reason}, which may run code when it is opened. If you know who wrote the "
            "file: --trust (in Python: trust=True)"
        )
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in parts.items():
            archive.writestr(f"model/{name}", content)
    copy.seek(0)
    return copy


def _parts(path: Path) -> dict[str, bytes]:
    """The contents by name, without the folder that all are in."""
    parts: dict[str, bytes] = {}
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
            raise ValueError("it unpacks to more than four gigabytes")
        for entry in archive.infolist():
            _, _, name = entry.filename.partition("/")
            if name in parts:
                raise ValueError(f"it holds {name} twice")
            parts[name] = archive.read(entry)
    if "models/model.json" not in parts:
        raise ValueError(
            "it holds no models/model.json, as other versions of torch wrote it: export again"
        )
    return parts


def _objections(parts: dict[str, bytes]) -> Iterator[str]:
    for name in parts:
        if not _PLAIN.fullmatch(name):
            yield f"it holds {name!r}"
    for kind in ("weights", "constants"):
        config = _json(parts.get(f"data/{kind}/model_{kind}_config.json", b"{}"))
        for entry in _dictionaries(config):
            if entry.get("use_pickle"):
                yield f"it holds pickled {kind}"
    if not _loads_as_numbers(parts.get("data/sample_inputs/model.pt", b"")):
        yield "its sample inputs are pickled"
    for entry in _dictionaries(_json(parts["models/model.json"])):
        yield from _of_entry(entry)


def _of_entry(entry: dict[str, Any]) -> Iterator[str]:
    """Reason to refuse an object in the description of the graph."""
    if "inputs" in entry and "target" in entry and not _named(_OPERATORS, entry["target"]):
        yield f"it calls {entry['target']!r}"
    if "as_operator" in entry:
        yield f"it hands {entry['as_operator']!r} on"
    size = entry.get("expr_str")
    if size is not None and not _named(_SIZES, size):
        yield f"a size of it is {size!r}"
    if "as_custom_obj" in entry or entry.get("custom_obj_values"):
        yield "it holds objects of its own"
    for key in ("in_spec", "out_spec"):
        tree = entry.get(key)
        if isinstance(tree, str):
            for branch in _dictionaries(_json(tree.encode())):
                if branch.get("type") is not None and branch["type"] not in _TREES:
                    yield f"its arguments are of type {branch['type']!r}"


def _named(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.fullmatch(name) is not None


def _loads_as_numbers(pickled: bytes) -> bool:
    """Whether a restricted unpickler, which makes tensors and nothing else, takes it."""
    if not pickled:
        return True
    try:
        torch.load(io.BytesIO(pickled), weights_only=True)
    except Exception:
        return False
    return True


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the description of the program is no JSON: {error}") from error


def _dictionaries(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON document, the outer ones first."""
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            yield part
            stack += part.values()
        elif isinstance(part, list):
            stack += part
