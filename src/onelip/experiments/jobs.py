"""Commands of onelip as jobs, each in a process of its own, and what runs many of them."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

COMMAND = (sys.executable, "-m", "onelip")
"""What begins a process of onelip."""

_GRACE = 10.0  # seconds in which an interrupted process may end by itself

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """Command of onelip, for a process of its own.

    It does nothing twice: whoever runs it a second time goes on where the first ended.

    Args:
        name: in messages.
        arguments: what follows ``onelip``.
        log: file that gets what the command prints, at its end.
        folder: working directory.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    folder: Path = field(default_factory=Path.cwd)


class Executor(Protocol):
    """Interface of what runs jobs: on this machine, by Ray, or by SLURM."""

    @property
    def slots(self) -> int:
        """Number of jobs that run at the same time."""

    def start(self, jobs: Sequence[Job]) -> list[Future[int]]:
        """Begin jobs, and return their exit statuses to come; negative after a signal."""

    def stop(self) -> None:
        """Interrupt the jobs that run, and forget the others."""


def run_job(job: Job, started: Callable[[subprocess.Popen[bytes]], None] | None = None) -> int:
    """Run a job in a process with one CPU thread.

    Args:
        job: the command.
        started: takes the process.

    Returns:
        The exit status, negative after a signal.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("ab") as log:
        process = subprocess.Popen(
            [*COMMAND, *job.arguments],
            cwd=job.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
            start_new_session=True,  # Ctrl-C reaches it once, through ``stop``
        )
        if started is not None:
            started(process)
        try:
            return process.wait()
        except BaseException:  # of whoever cancels this call
            _end([process])
            raise


class LocalExecutor:
    """Runs jobs on this machine.

    Args:
        workers: processes at the same time.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stopped = threading.Event()

    @property
    def slots(self) -> int:
        """Number of processes at the same time."""
        return self._workers

    def start(self, jobs: Sequence[Job]) -> list[Future[int]]:
        """Queue jobs."""
        return [self._pool.submit(run_job, job, self._note) for job in jobs]

    def stop(self) -> None:
        """Interrupt the processes and wait for them."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        _end(self._processes)
        self._pool.shutdown(wait=True)

    def _note(self, process: subprocess.Popen[bytes]) -> None:
        self._processes.append(process)
        if self._stopped.is_set():
            process.kill()


def _end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt processes, and kill those that ignore it: files appear whole or not at all."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
    end = time.monotonic() + _GRACE
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))
        if process.poll() is None:
            process.kill()


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Hold a lock on a file, after waiting for a process that holds it; it ends with the process.

    So a worker that outlived the command that began it is waited for, not doubled.
    """
    import fcntl  # of POSIX systems

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def how_it_ended(job: Job, status: int) -> str:
    """Say in a line why a job failed: its signal, or the last line that it printed."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = "unknown"
        return f"killed by signal {-status} ({name})"
    try:
        text = job.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith("onelip: ")] or lines
    return said[-1].removeprefix("onelip: ") if said else f"exit status {status}"
