"""Executors on several machines, which share the folders of the runs: Ray, and SLURM's arrays."""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from onelip.errors import UsageError, missing_extra
from onelip.experiments.jobs import Executor, Job, LocalExecutor, run_job

EXECUTORS = ("local", "ray", "slurm")
"""Where jobs can run."""

_POLL = 0.5  # seconds between looks at SLURM's jobs


def new_executor(
    name: str, workers: int, folder: Path, options: Mapping[str, str] | None = None
) -> Executor:
    """Return what runs jobs.

    Args:
        name: of ``EXECUTORS``.
        workers: jobs at the same time.
        folder: for SLURM's scripts and logs.
        options: of SLURM, as submitit names them: ``timeout_min``, ``slurm_partition``.

    Raises:
        UsageError: there is no such executor, or its package is not installed.
    """
    if name == "ray":
        return RayExecutor(workers)
    if name == "slurm":
        return SubmititExecutor(workers, folder, options=options)
    if name != "local":
        raise UsageError(f"no executor {name!r}; known: {', '.join(EXECUTORS)}")
    return LocalExecutor(workers)


class RayExecutor:
    """Runs jobs as tasks of Ray, each on one CPU.

    Args:
        workers: CPUs of the local cluster that is begun if ``RAY_ADDRESS`` names none.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at that address.
    """

    def __init__(self, workers: int) -> None:
        try:
            import ray as package
        except ImportError as error:
            raise missing_extra("ray", "sweep") from error
        ray: Any = package
        self._ray = ray
        self._refs: list[Any] = []
        begun = ray.is_initialized()
        try:
            if not begun:
                quiet = {"include_dashboard": False, "log_to_driver": False}
                ray.init(**self._size(workers), **quiet, logging_level="ERROR")
        except Exception as error:  # of the network, of a version
            reason = str(error).partition("\n")[0]
            raise UsageError(f"Ray does not begin ({reason}): see RAY_ADDRESS") from error
        self._slots = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._task = ray.remote(num_cpus=1, max_retries=0)(run_job)

    @staticmethod
    def _size(workers: int) -> dict[str, Any]:
        import os

        return {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers}

    @property
    def slots(self) -> int:
        """Number of CPUs of the cluster."""
        return self._slots

    def start(self, jobs: Sequence[Job]) -> list[Future[int]]:
        """Hand jobs to the cluster."""
        refs = [self._task.remote(job) for job in jobs]
        self._refs += refs
        return [ref.future() for ref in refs]

    def stop(self) -> None:
        """Interrupt the tasks, and leave the cluster."""
        for ref in self._refs:
            with contextlib.suppress(Exception):  # it has ended
                self._ray.cancel(ref)
        self._ray.shutdown()


class SubmititExecutor:
    """Runs jobs as arrays of SLURM.

    Args:
        workers: jobs of an array at the same time.
        folder: for scripts and logs.
        cluster: None for the SLURM of this machine; ``local`` runs processes here instead.
        options: of submitit.

    Raises:
        UsageError: submitit is not installed, there is no SLURM, or an option is unknown.
    """

    def __init__(
        self,
        workers: int,
        folder: Path,
        cluster: str | None = "slurm",
        options: Mapping[str, str] | None = None,
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise missing_extra("submitit", "sweep") from error
        self._slots = workers
        self._jobs: list[Any] = []
        settings: dict[str, Any] = {"timeout_min": 24 * 60, "name": "onelip", "cpus_per_task": 1}
        settings |= {name: _number(value) for name, value in (options or {}).items()}
        try:
            self._executor: Any = submitit.AutoExecutor(folder=folder / "slurm", cluster=cluster)
            self._executor.update_parameters(slurm_array_parallelism=workers, **settings)
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise UsageError(
                f"no SLURM to send jobs to ({reason}): --on local runs here"
            ) from error

    @property
    def slots(self) -> int:
        """Number of jobs at the same time."""
        return self._slots

    def start(self, jobs: Sequence[Job]) -> list[Future[int]]:
        """Submit jobs as one array."""
        submitted = self._executor.map_array(run_job, list(jobs))
        self._jobs += submitted
        futures: list[Future[int]] = [Future() for _ in submitted]
        pairs = list(zip(submitted, futures, strict=True))
        threading.Thread(target=_wait_for, args=(pairs,), daemon=True).start()
        return futures

    def stop(self) -> None:
        """Cancel what has not ended."""
        for job in self._jobs:
            if not job.done():
                job.cancel()


def _wait_for(pairs: list[tuple[Any, Future[int]]]) -> None:
    """Hand the results of submitted jobs on to their futures."""
    pause = threading.Event()
    while pairs:
        for job, future in [pair for pair in pairs if pair[0].done()]:
            try:
                future.set_result(job.result())
            except Exception as error:  # of a job that was lost
                future.set_exception(error)
        pairs = [pair for pair in pairs if not pair[1].done()]
        pause.wait(_POLL)


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text
