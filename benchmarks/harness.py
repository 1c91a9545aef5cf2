"""Compare functions in one process: they take turns, and medians of ratios are what counts."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def alternate(
    functions: Mapping[str, Callable[[], object]], *, rounds: int = 9, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of every call: A, B, C, A, B, C, ..."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(warm_up + rounds):
        for name, function in functions.items():
            _synchronise()
            start = time.perf_counter()
            function()
            _synchronise()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def without_slow(
    functions: Mapping[str, Callable[[], object]], limit: float
) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """Those that take less than a number of seconds, and the milliseconds of the others, once."""
    fast, slow = {}, {}
    for name, function in functions.items():
        function()
        _synchronise()
        start = time.perf_counter()
        function()
        _synchronise()
        seconds = time.perf_counter() - start
        if seconds < limit:
            fast[name] = function
        else:
            slow[name] = round(1e3 * seconds, 1)
    return fast, slow


def ratios(seconds: Mapping[str, list[float]], base: str) -> dict[str, float]:
    """Median over the rounds of the time of each function over that of the base."""
    return {
        name: statistics.median(a / b for a, b in zip(times, seconds[base], strict=True))
        for name, times in seconds.items()
    }


def summary(seconds: Mapping[str, list[float]], base: str) -> dict[str, Any]:
    """Medians in milliseconds and ratios to the base, rounded for reading."""
    return {
        "median_ms": {k: round(1e3 * statistics.median(v), 3) for k, v in seconds.items()},
        f"ratio_to_{base}": {k: round(v, 3) for k, v in ratios(seconds, base).items()},
    }


def machine() -> dict[str, Any]:
    """Where the numbers were taken."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def save(name: str, rows: Iterable[dict[str, Any]]) -> None:
    """Print each row as it comes, and store all so far with the machine."""
    done = []
    for row in rows:
        print(json.dumps(row), flush=True)
        done.append(row)
        _store(name, done)


def _store(name: str, rows: list[dict[str, Any]]) -> None:
    content = {"machine": machine(), "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
