"""Every field of a JSON record with every value that it should not have, and damaged bytes."""

import copy
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

DEEP = "@deep@"  # stands for more brackets than any parser nests

VALUES = [
    None, True, False, 0, 1, -1, 7, 1.5, -0.5, 1e-320, 1e308, 10**400, 2**63, -(2**70),
    float("nan"), float("inf"), -float("inf"), "", "x", "0", "1e400", "é\u0000", "\ud800",
    "../../etc", "a" * 5000, [], [0], [None], ["a"], [1e400], [[]], {}, {"a": 1}, {"": None},
    {"1": "x"}, {"nan": 0.5}, {"folder": 3}, [{}] * 3, DEEP,
]  # fmt: skip


def paths(content: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every entry; of lists the first two and the last."""
    if isinstance(content, dict):
        inner = list(content.items())
    elif isinstance(content, list):
        inner = [
            (i, content[i]) for i in sorted({0, 1, len(content) - 1} & set(range(len(content))))
        ]
    else:
        return
    for key, value in inner:
        yield (*prefix, key)
        yield from paths(value, (*prefix, key))


def mutations(content: Any) -> Iterator[tuple[str, str]]:
    """What was done, and the text of the record with one entry replaced or removed."""
    for path, value in itertools.product(paths(content), [..., *VALUES]):
        changed = _replaced(content, path, value)
        shown = "removed" if value is ... else repr(value)[:40]
        text = json.dumps(changed).replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000)
        yield f"{'/'.join(map(str, path))}: {shown}", text


def _replaced(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A record that shares with another one all that is not on the way to an entry."""
    if not path:
        return value
    changed = copy.copy(content)
    if len(path) == 1 and value is ...:
        del changed[path[0]]
    else:
        changed[path[0]] = _replaced(content[path[0]], path[1:], value)
    return changed


def damaged(data: bytes, count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """A file with bytes changed, cut out or put in."""
    draw = random.Random(seed)
    for number in range(count):
        start = draw.randrange(len(data))
        length = draw.choice((1, 2, 8, 64, len(data)))
        new = draw.choice((b"", draw.randbytes(length), b"\x00" * length, b"[" * length))
        yield f"bytes {number}", data[:start] + new + data[start + length :]
