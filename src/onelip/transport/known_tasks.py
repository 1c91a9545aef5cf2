"""Tasks with a known distance by name."""

import re

from onelip.errors import UsageError
from onelip.transport.funnels import read_funnels
from onelip.transport.tasks import TASKS, KnownTask

_FUNNELS = re.compile(r"funnels-([1-9][0-9]{0,5})-([1-9][0-9]{0,5})")


def check_task(name: str) -> None:
    """Refuse names of no task.

    Raises:
        UsageError: the message lists them.
    """
    if name not in TASKS and _FUNNELS.fullmatch(name) is None:
        raise UsageError(f"no task {name!r}; known: {', '.join(TASKS)}, funnels-FEATURES-COUNT")


def known_task(name: str, folder: str | None = None) -> KnownTask:
    """Return a task by its name, which for ``funnels-FEATURES-COUNT`` is read from a file.

    Args:
        name: of ``TASKS``, or of funnels.
        folder: see ``read_funnels``.

    Raises:
        UsageError: there is no such task, or its file cannot be read.
    """
    check_task(name)
    match = _FUNNELS.fullmatch(name)
    if match is None:
        return TASKS[name]
    features, count = map(int, match.groups())
    return read_funnels(features, count, folder)
