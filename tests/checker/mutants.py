"""Changes of a bundle: what somebody might try who wants a false claim to be believed."""

import copy
import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 10**9, 10**30, 1.5, 1e308, "", "x", "nan", "inf"),
    *("0x1p+0", "0x0p+0", "-0x1p+0", "0x1p-1074", "0x1.fffffffffffffp+1023", "0x1p+1024"),
    *("0x" + "1" * 50, "samples", "../x", "tensors.safetensors", "dense", "take", "exponential"),
    *("torus", "kernel", "matrix", "pairs", "network", {}, {"kind": "sort"}, [[[[]]]]),
    *([], [0], [1], [1, 1], [3, 3], [-1, 2], [10**9, 10**9], [1] * 70),
)
"""Values that a field does not expect, or not here."""

TENSORS, PROOF = "tensors.safetensors", "proof.json"


def mutate(bundle: Path, folder: Path, rng: random.Random) -> str:
    """Write a changed copy of a bundle; what was changed, by kind."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    kind = rng.choice(list(KINDS))
    KINDS[kind](folder, rng)
    return kind


def _record(folder: Path) -> Any:
    return json.loads((folder / PROOF).read_text())


def _write(folder: Path, record: Any) -> None:
    """The record, with the digest of what the tensors are now."""
    digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    if isinstance(record, dict) and isinstance(record.get("files"), dict):
        record["files"][TENSORS] = digest
    (folder / PROOF).write_text(json.dumps(record))


def places(record: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways to all values in a record."""
    found = [path] if path else []
    if isinstance(record, dict | list):
        items = record.items() if isinstance(record, dict) else enumerate(record)
        for key, value in items:
            found += places(value, (*path, key))
    return found


def _at(record: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        record = record[key]
    return record


def _replaced(folder: Path, rng: random.Random) -> None:
    record = _record(folder)
    *way, key = rng.choice(places(record))
    _at(record, tuple(way))[key] = copy.deepcopy(rng.choice(NASTY))
    _write(folder, record)


def _copied(folder: Path, rng: random.Random) -> None:
    """A value from elsewhere in the record, of the same name where there is one."""
    record = _record(folder)
    paths = places(record)
    target = rng.choice(paths)
    same = [path for path in paths if path[-1] == target[-1]] if rng.random() < 0.8 else paths
    _at(record, target[:-1])[target[-1]] = copy.deepcopy(_at(record, rng.choice(same)))
    _write(folder, record)


def _scaled(folder: Path, rng: random.Random) -> None:
    """A claim times a number near 1, mostly below."""
    record = _record(folder)
    paths = [path for path in places(record) if isinstance(_at(record, path), str)]
    paths = [path for path in paths if _at(record, path).startswith("0x")]
    *way, key = rng.choice(paths)
    factor = 1 + rng.choice([-1, -1, -1, 1]) * 10.0 ** -rng.uniform(0, 11)
    entry = _at(record, tuple(way))
    entry[key] = (float.fromhex(entry[key]) * factor).hex()
    _write(folder, record)


def _removed(folder: Path, rng: random.Random) -> None:
    record = _record(folder)
    *way, key = rng.choice(places(record))
    del _at(record, tuple(way))[key]
    _write(folder, record)


def _added(folder: Path, rng: random.Random) -> None:
    record = _record(folder)
    entries = [record, *(_at(record, path) for path in places(record))]
    entry = rng.choice([entry for entry in entries if isinstance(entry, dict | list)])
    if isinstance(entry, dict):
        entry[rng.choice(["more", "bias", "step", "skip", "outer", "norm"])] = rng.choice(NASTY)
    else:
        entry.insert(rng.randint(0, len(entry)), copy.deepcopy(rng.choice(entry or [0])))
    _write(folder, record)


def _swapped(folder: Path, rng: random.Random) -> None:
    record = _record(folder)
    lists = [path for path in places(record) if isinstance(_at(record, path), list)]
    entry = _at(record, rng.choice(lists))
    rng.shuffle(entry)
    _write(folder, record)


def _weights(folder: Path, rng: random.Random) -> None:
    """Bits of tensors, behind a digest that is right again."""
    data = bytearray((folder / TENSORS).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    for _ in range(rng.choice([1, 1, 5])):
        at = rng.randrange(start, len(data))
        data[at] = rng.choice([data[at] ^ 1 << rng.randrange(8), 0, 255, 127])
    (folder / TENSORS).write_bytes(bytes(data))
    _write(folder, _record(folder))


def _numbers(folder: Path, rng: random.Random) -> None:
    """One number of a tensor, to something that floating-point code likes to stumble over."""
    data = bytearray((folder / TENSORS).read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    entry = rng.choice(list(header.values()))
    width = {"F32": 4}.get(entry["dtype"], 8)
    first, last = (8 + size + offset for offset in entry["data_offsets"])
    at = first + width * rng.randrange((last - first) // width)
    value = rng.choice(
        [np.nan, np.inf, -np.inf, 1e300, 1e-300, 5e-324, 3e38, 1e-45, 0.0, -1.0, 2.0]
    )
    kind = {"F32": np.float32, "F64": np.float64, "I64": np.int64}[entry["dtype"]]
    with np.errstate(all="ignore"):
        number = np.array(int(rng.choice([-1, 0, 7, 10**6])) if kind is np.int64 else value, kind)
    data[at : at + width] = number.tobytes()
    (folder / TENSORS).write_bytes(bytes(data))
    _write(folder, _record(folder))


def _header(folder: Path, rng: random.Random) -> None:
    """A lie in the header of the tensors."""
    data = (folder / TENSORS).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)  # which checkers ignore, and the library of the truth reads
    *way, key = rng.choice(places(header))
    _at(header, tuple(way))[key] = copy.deepcopy(
        rng.choice([*NASTY, "F64", "F32", "I64", [4, 4], [0, 16]])
    )
    text = json.dumps(header).encode()
    length = rng.choice([len(text), len(text), len(text) + 1, 2**63, 0])
    (folder / TENSORS).write_bytes(length.to_bytes(8, "little") + text + data[8 + size :])
    _write(folder, _record(folder))


def _cut(folder: Path, rng: random.Random) -> None:
    """The end of a file, or more of it."""
    path = folder / rng.choice([TENSORS, PROOF])
    data = path.read_bytes()
    cut = data[: rng.randrange(len(data))] if rng.random() < 0.7 else data + rng.randbytes(9)
    path.write_bytes(cut)
    if path.name == TENSORS:
        _write(folder, _record(folder))


def _text(folder: Path, rng: random.Random) -> None:
    """Bytes of the record."""
    data = bytearray((folder / PROOF).read_bytes())
    for _ in range(rng.choice([1, 1, 2])):
        data[rng.randrange(len(data))] = rng.choice(b'0123456789abcdefpx+-.,:"[]{}tfn \\u\x00\xff')
    (folder / PROOF).write_bytes(bytes(data))


def _behind_the_digest(folder: Path, rng: random.Random) -> None:
    """Bits of tensors, without telling."""
    data = bytearray((folder / TENSORS).read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (folder / TENSORS).write_bytes(bytes(data))


def _nested(folder: Path, rng: random.Random) -> None:
    """Objects or lists in each other, deeper than a parser may like."""
    record = _record(folder)
    *way, key = rng.choice(places(record))
    _at(record, tuple(way))[key] = "@"
    depth = rng.choice([50, 900, 100_000])
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}")])
    deep = opening * depth + "1" + closing * depth
    (folder / PROOF).write_text(json.dumps(record).replace('"@"', deep))


KINDS = {
    "value": _replaced,
    "copy": _copied,
    "claim": _scaled,
    "removed": _removed,
    "added": _added,
    "order": _swapped,
    "weights": _weights,
    "numbers": _numbers,
    "header": _header,
    "cut": _cut,
    "text": _text,
    "digest": _behind_the_digest,
    "nested": _nested,
}
"""Ways to change a bundle."""
