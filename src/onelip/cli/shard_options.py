"""Options of ``onelip certify`` for many images, which processes certify in shards."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onelip.errors import UsageError

if TYPE_CHECKING:
    from onelip.experiments.classification import ClassificationFolder

_GIVEN = ("images", "workers", "part")


def add_shard_options(parser: Any) -> None:
    """Add the options."""
    shards = "folder of shards: many images, by several processes; the same command goes on"
    parser.add_argument("--shards", type=Path, help=shards)
    images = ".npy file of uint8 images to certify in shards; the test set by default"
    parser.add_argument("--images", type=Path, help=images)
    parser.add_argument("--workers", type=int, help="processes that certify shards; 1 by default")
    part = "2/8: certify this part of the shards and stop, as workers do"
    parser.add_argument("--part", help=part)


def refuse_shard_options(options: Any) -> None:
    """Refuse options of shards without a folder for them.

    Raises:
        UsageError: there is one.
    """
    for name in _GIVEN:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name} is for shards: give --shards DIR, too")


def certify_in_shards(run: "ClassificationFolder", options: Any) -> None:
    """Certify images in shards, and merge them unless this is a part.

    Raises:
        UsageError: shards are missing at the end, or an option cannot be used.
    """
    from onelip.experiments.classification import shards  # help needs no torch

    workers = 1 if options.workers is None else options.workers
    if workers < 1:
        raise UsageError(f"--workers must be 1 or more, got {workers}")
    task = shards.task_of(
        run,
        options.shards,
        images=options.images,
        data=options.data,
        method=options.method,
        level=options.level,
        precision=options.precision,
    )
    if options.part is not None:
        part, parts = _part(options.part)
        done = shards.certify_part(task, part - 1, parts)
        print(f"part {part} of {parts}: {done} shards certified")
        return
    failed: list[str] = []
    if workers == 1:
        shards.certify_part(task)
    else:
        failed = shards.certify_by_workers(task, _arguments(run, options), workers)
    try:
        merged = shards.merge(task)
    except UsageError as error:
        raise UsageError(f"{'; '.join([*failed, str(error)])}") from None
    print(shards.summary(task, merged, options.data))


def _arguments(run: "ClassificationFolder", options: Any) -> list[str]:
    """Return the command of a worker."""
    words = ["certify", str(run.path.resolve()), f"--shards={options.shards.resolve()}"]
    words += [f"--level={options.level}"]
    for name in ("method", "precision"):
        value = getattr(options, name)
        words += [] if value is None else [f"--{name}={value}"]
    for name in ("images", "data"):
        path = getattr(options, name)
        words += [] if path is None else [f"--{name}={path.resolve()}"]
    return words


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--part takes a part of all, as 2/8, got {text!r}")
    return int(found[1]), int(found[2])
