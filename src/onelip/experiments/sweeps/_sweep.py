"""A sweep: its runs as jobs, what became of each, and the work of one worker."""

import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait

from onelip.errors import OnelipError
from onelip.experiments.classification import ClassificationFolder, format_eps
from onelip.experiments.jobs import Executor, Job, how_it_ended
from onelip.experiments.sweeps.folder import SweepFolder, SweepRun, is_finished


def run_sweep(folder: SweepFolder, executor: Executor, say: Callable[[str], None]) -> list[str]:
    """Run what is not finished of a grid, and say in a line what became of each run.

    Args:
        folder: of the sweep.
        executor: what runs the workers; it is stopped at the end, and by Ctrl-C.
        say: takes each line.

    Returns:
        The names of runs that are not finished.
    """
    runs = folder.runs()
    left = [run for run in runs if not is_done(folder, run)]
    return run_all(folder, executor, say, left, total=len(runs))


def _no_more() -> SweepRun | None:
    """A grid has no runs beyond its own."""
    return None


def run_all(
    folder: SweepFolder,
    executor: Executor,
    say: Callable[[str], None],
    first: Sequence[SweepRun],
    *,
    total: int,
    more: Callable[[], SweepRun | None] = _no_more,
    ended: Callable[[SweepRun, bool], None] | None = None,
) -> list[str]:
    """Run some runs, and others as long as there are more and a worker is free.

    Args:
        folder: of the sweep.
        executor: what runs the workers; it is stopped at the end.
        say: takes a line for each run that has ended.
        first: runs to begin with.
        total: number of runs of the whole sweep.
        more: returns the next run, None if there is none.
        ended: takes each run that has ended, and whether it is finished.

    Returns:
        The names of runs that are not finished.
    """
    count = sum(is_done(folder, run) for run in folder.runs())
    if count:
        say(f"{count} of {total} runs are finished already")
    unfinished: list[str] = []
    since = time.monotonic()
    waiting: dict[Future[int], tuple[SweepRun, Job]] = {}

    def start(runs: Sequence[SweepRun]) -> None:
        jobs = [job_of(folder, run) for run in runs]
        pairs = zip(runs, jobs, strict=True)
        waiting.update(zip(executor.start(jobs), pairs, strict=True))

    try:
        start(first)
        while True:
            while len(waiting) < executor.slots and (run := more()) is not None:
                start([run])
            if not waiting:
                return unfinished
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                run, job = waiting.pop(future)
                count += 1
                said = outcome(folder, run, job, future)
                say(f"[{count}/{total}, {time.monotonic() - since:.0f} s] {run['name']}: {said}")
                finished = is_done(folder, run)
                if ended is not None:
                    ended(run, finished)
                if not finished:
                    unfinished.append(run["name"])
    finally:
        executor.stop()


def job_of(folder: SweepFolder, run: SweepRun) -> Job:
    """Return the job of a run: a worker of the sweep that does this one."""
    arguments = ("sweep", "--resume", str(folder.path.resolve()), "--only", run["name"])
    return Job(run["name"], arguments, folder.log_path(run).resolve())


def outcome(folder: SweepFolder, run: SweepRun, job: Job, future: Future[int]) -> str:
    """Say what became of a run."""
    try:
        status = future.result()
    except Exception as error:  # whatever an executor says of a lost worker
        return f"its worker was lost ({str(error).strip().partition(chr(10))[0]})"
    if status:
        return how_it_ended(job, status)
    if not is_done(folder, run):
        return "stopped in time"
    record = ClassificationFolder.open(folder.run_path(run)).read()
    of, found = "", record.get("held_out")
    if "certify" in record:
        found = record["certify"]["test"]
    elif found is not None:
        of = "held-out images: "
    assert found is not None
    shares = [f"clean {100 * found['clean']:.2f} %"]
    shares += [
        f"{100 * share:.2f} % at {format_eps(float(eps))}"
        for eps, share in found["certified"].items()
    ]
    return f"{of}{', '.join(shares)}; trained in {record['train']['seconds']:.0f} s"


def clear_what_never_began(folder: SweepFolder, run: SweepRun) -> bool:
    """Check whether a run has begun; what a process killed in its first moment left is removed."""
    path = folder.run_path(run)
    if path.exists() and not (path / "metrics.json").exists():
        shutil.rmtree(path)
    return path.exists()


def is_done(folder: SweepFolder, run: SweepRun) -> bool:
    """Check whether a run is finished; one whose record cannot be read is not."""
    try:
        return is_finished(folder.run_path(run), tested=folder.tested)
    except OnelipError:
        return False
