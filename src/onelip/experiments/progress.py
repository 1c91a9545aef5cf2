"""Progress bars of trainings."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from onelip.errors import missing_extra


def new_bar(step: int, steps: int) -> Any:
    """Open a tqdm bar over the steps of a training.

    Args:
        step: steps done.
        steps: all of them.

    Raises:
        UsageError: tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise missing_extra("tqdm", "transport") from error
    return tqdm(total=steps, initial=step, unit="step", mininterval=0.5, ncols=100)


@contextlib.contextmanager
def progress_bar(
    step: int, steps: int, wanted: bool = True
) -> Iterator[Callable[[int, float], None] | None]:
    """Yield a callback for each step and its value; None without a bar or without steps left.

    Args:
        step: steps done.
        steps: all of them.
        wanted: show a bar.

    Raises:
        UsageError: tqdm is not installed.
    """
    if not wanted or step >= steps:
        yield None
        return

    def show(step: int, value: float) -> None:
        bar.set_postfix(value=f"{value:.4f}", refresh=False)
        bar.update(step - bar.n)

    with new_bar(step, steps) as bar:
        yield show
