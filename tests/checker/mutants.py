"""Bundles that are changed at random, with digests made right again."""

import copy
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Path_ = tuple[str | int, ...]
CLAIMS = "0x0p+0", "0x1p-3", "0x1p+0", "0x1p+9", "0x1p-1074", "0x1p+1024", "-0x1p+0", "1.0", "nan"
NUMBERS = 0, 1, 2, 3, 5, -1, 1 << 26, 1 << 70, 1.5, 1e300
OTHERS = None, True, False, "", "matrix", "torus", "kernel", "sort", [], {}, [1], [2, 2], {"map": 1}


def places(record: Any, way: Path_ = ()) -> Iterator[Path_]:
    """All places in a record."""
    if way:
        yield way
    entries = record.items() if isinstance(record, dict) else enumerate(record)
    for key, value in entries:
        if isinstance(value, dict | list):
            yield from places(value, (*way, key))
        else:
            yield (*way, key)


def at(record: Any, way: Path_) -> Any:
    """What is at a place."""
    for key in way:
        record = record[key]
    return record


def put(record: Any, way: Path_, value: Any) -> None:
    """Replace what is at a place."""
    at(record, way[:-1])[way[-1]] = value


def mutant(bundle: Path, folder: Path, seed: int) -> str:
    """Write a changed copy of a bundle, and say what was changed."""
    dice = random.Random(f"{bundle.name} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    record = json.loads((folder / "proof.json").read_text())
    said, text = [], None
    for _ in range(dice.choice((1, 1, 1, 2))):
        change = dice.choice(
            (numbers, numbers, a_claim, a_claim, a_field, swapped, dropped, header)
        )
        said.append(change(dice, folder, record))
    data = (folder / "tensors.safetensors").read_bytes()
    if isinstance(record.get("files"), dict) and dice.random() < 0.97:
        record["files"]["tensors.safetensors"] = hashlib.sha256(data).hexdigest()
    text = json.dumps(record)
    if dice.random() < 0.05:
        text = text[: dice.randrange(len(text))] + dice.choice(("", "}", " ", '"', ",", "\0"))
        said.append("cut")
    (folder / "proof.json").write_text(text)
    return "; ".join(said)


def numbers(dice: random.Random, folder: Path, record: Any) -> str:
    """Change some bytes of tensors."""
    path = folder / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    if start < len(data):
        for _ in range(dice.choice((1, 1, 5))):
            data[dice.randrange(start, len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(bytes(data))
    return "bytes of tensors"


def header(dice: random.Random, folder: Path, record: Any) -> str:
    """Change a byte before the tensors, or the length of the file."""
    path = folder / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    kind = dice.randrange(4)
    if kind == 0:
        data[dice.randrange(min(start, len(data)))] = dice.choice(b'0123456789{}",:[] UFI')
    elif kind == 1:
        data = data[: dice.randrange(len(data))]
    elif kind == 2:
        data += b"\0" * dice.choice((1, 8))
    else:
        place = bytes(data[8:start]).find(b'"dtype":"F')
        if place >= 0:
            data[8 + place + 9 : 8 + place + 10] = b"I"
    path.write_bytes(bytes(data))
    return f"header {kind}"


def a_claim(dice: random.Random, folder: Path, record: Any) -> str:
    """Make a claim a little larger or smaller."""
    claims = [way for way in places(record) if str(at(record, way)).startswith("0x")]
    if not claims:
        return "nothing"
    way = dice.choice(claims)
    factor = 1 + dice.choice((-1, 1)) * 2.0 ** -dice.choice((1, 3, 8, 16, 20, 24, 28, 31, 36, 48))
    put(record, way, (float.fromhex(at(record, way)) * factor).hex())
    return f"{way} times {factor}"


def a_field(dice: random.Random, folder: Path, record: Any) -> str:
    """Put something else at a place."""
    way = dice.choice(list(places(record)))
    value = dice.choice((*CLAIMS, *NUMBERS, *OTHERS))
    put(record, way, value)
    return f"{way} is {value}"


def swapped(dice: random.Random, folder: Path, record: Any) -> str:
    """Exchange what is at two places with the same name."""
    first = dice.choice(list(places(record)))
    same = [way for way in places(record) if way[-1] == first[-1]]
    second = dice.choice(same)
    short = min(len(first), len(second))
    if first[:short] == second[:short]:
        return "nothing"
    a, b = copy.deepcopy(at(record, first)), copy.deepcopy(at(record, second))
    put(record, first, b)
    put(record, second, a)
    return f"{first} and {second}"


def dropped(dice: random.Random, folder: Path, record: Any) -> str:
    """Leave a field out, rename it, add one, or repeat an entry of a list."""
    way = dice.choice(list(places(record)))
    parent = at(record, way[:-1])
    value = parent[way[-1]]
    kind = dice.randrange(3)
    if isinstance(parent, list):
        parent.insert(way[-1], copy.deepcopy(value)) if kind else parent.pop(way[-1])
    elif kind == 0:
        del parent[way[-1]]
    elif kind == 1:
        parent[str(way[-1]).upper()] = parent.pop(way[-1])
    else:
        parent["more"] = value
    return f"{way} {kind}"
