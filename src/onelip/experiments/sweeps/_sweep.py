"""A sweep: its runs as jobs, what became of each, and the work of one worker."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait

from onelip.errors import OnelipError
from onelip.experiments.classification import ClassificationFolder, format_eps
from onelip.experiments.jobs import Executor, Job, how_it_ended
from onelip.experiments.sweeps.folder import SweepFolder, SweepRun, is_finished


def run_sweep(folder: SweepFolder, executor: Executor, say: Callable[[str], None]) -> list[str]:
    """Run what is not finished, and say in a line what became of each run.

    Args:
        folder: of the sweep.
        executor: what runs the workers; it is stopped at the end, and by Ctrl-C.
        say: takes each line.

    Returns:
        The names of runs that are not finished.
    """
    runs = folder.runs()
    left = [run for run in runs if not _finished(folder, run)]
    if len(left) < len(runs):
        say(f"{len(runs) - len(left)} of {len(runs)} runs are finished already")
    count, unfinished = len(runs) - len(left), []
    try:
        jobs = {run["name"]: job_of(folder, run) for run in left}
        started = executor.start([*jobs.values()])
        waiting: dict[Future[int], SweepRun] = dict(zip(started, left, strict=True))
        since = time.monotonic()
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                run = waiting.pop(future)
                count += 1
                ended = outcome(folder, run, jobs[run["name"]], future.result())
                say(f"[{count}/{len(runs)}, {time.monotonic() - since:.0f} s] {ended}")
                if not _finished(folder, run):
                    unfinished.append(run["name"])
    finally:
        executor.stop()
    return unfinished


def job_of(folder: SweepFolder, run: SweepRun) -> Job:
    """Return the job of a run: a worker of the sweep that does this one."""
    arguments = ("sweep", "--resume", str(folder.path.resolve()), "--only", run["name"])
    return Job(run["name"], arguments, folder.log_path(run).resolve())


def outcome(folder: SweepFolder, run: SweepRun, job: Job, status: int) -> str:
    """Say what became of a run."""
    if status:
        return f"{run['name']}: {how_it_ended(job, status)}"
    path = folder.run_path(run)
    if not _finished(folder, run):
        return f"{run['name']}: stopped in time"
    record = ClassificationFolder.open(path).read()
    test, seconds = record["certify"]["test"], record["train"]["seconds"]
    shares = [f"clean {100 * test['clean']:.2f} %"]
    shares += [
        f"{100 * share:.2f} % at {format_eps(float(eps))}"
        for eps, share in test["certified"].items()
    ]
    return f"{run['name']}: {', '.join(shares)}; trained in {seconds:.0f} s"


def clear_what_never_began(folder: SweepFolder, run: SweepRun) -> bool:
    """Check whether a run has begun; what a process killed in its first moment left is removed."""
    path = folder.run_path(run)
    if path.exists() and not (path / "metrics.json").exists():
        shutil.rmtree(path)
    return path.exists()


def _finished(folder: SweepFolder, run: SweepRun) -> bool:
    """Check whether a run is finished; one whose record cannot be read is not."""
    try:
        return is_finished(folder.run_path(run))
    except OnelipError:
        return False
