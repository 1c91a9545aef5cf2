"""Folder of a sweep: ``sweep.json``, a run folder for each point, and logs."""

from pathlib import Path
from typing import Annotated, NotRequired, Self, TypedDict

from msgspec import Meta

from onelip.errors import UsageError
from onelip.experiments.classification.comparison import read
from onelip.experiments.record_schema import Record
from onelip.experiments.run_folder import RunFolder
from onelip.experiments.sweeps.axes import point_name, points
from onelip.experiments.sweeps.settings import SweepSettings

_Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_=+,][A-Za-z0-9_=+,.-]*$")]
"""Name of a folder inside that of the sweep."""


class SweepRun(TypedDict):
    """Run of a sweep: its folder's name, and what it varies."""

    name: _Name
    values: dict[str, str]


class SweepRecord(Record):
    """Record of ``onelip sweep``."""

    sweep: dict[str, object]
    runs: NotRequired[list[SweepRun]]


class SweepFolder(RunFolder[SweepSettings, SweepRecord]):
    """Reader and writer of the files of a sweep.

    Args:
        path: the folder.
    """

    command, key = "sweep", "sweep"
    settings_type, schema = SweepSettings, SweepRecord

    def __init__(self, path: Path) -> None:
        super().__init__(path, "sweep.json")

    @classmethod
    def open_or_create(cls, settings: SweepSettings, path: Path | None) -> Self:
        """Open the folder of these settings, or make it.

        Raises:
            UsageError: the folder holds another sweep, or something else.
        """
        path = path or Path("runs") / settings.run_name
        if not (path / "sweep.json").exists():
            return cls.create(settings, path)
        folder = cls.open(path)
        if folder.settings.as_record() != settings.as_record():
            raise UsageError(
                f"{path} holds a sweep with other settings: choose another --out, or go on with "
                f"that one by {folder.resume}"
            )
        return folder

    def runs(self) -> list[SweepRun]:
        """List the runs, and note them in the record the first time."""
        stored = self.read().get("runs")
        if stored is None:
            stored = [
                SweepRun(name=point_name(point), values=point)
                for point in points(self.settings.grid)
                if not self.settings.search
            ]
            self.write({"runs": stored})
        return stored

    def named(self, name: str) -> SweepRun:
        """Find a run.

        Raises:
            UsageError: there is none of that name.
        """
        for run in self.runs():
            if run["name"] == name:
                return run
        raise UsageError(f"{self.record} has no run {name!r}: ls {self.path} shows them")

    @property
    def tested(self) -> bool:
        """Whether the runs are certified on test images."""
        words = " ".join(self.arguments(SweepRun(name="", values={}))).replace("=", " ")
        return "--evaluate held-out" not in words

    def run_path(self, run: SweepRun) -> Path:
        """Folder of a run."""
        return self.path / run["name"]

    def log_path(self, run: SweepRun) -> Path:
        """File of what the workers of a run print; the one that is at work holds it locked."""
        return self.path / "logs" / f"{run['name']}.log"

    def arguments(self, run: SweepRun) -> list[str]:
        """Return what follows ``onelip train`` to begin a run."""
        return self.settings.arguments(run["values"])


def is_finished(path: Path, *, tested: bool = True) -> bool:
    """Check whether a run was trained to its end, certified, and attacked if it is to be.

    Args:
        path: of the run.
        tested: on test images; else the certificate of held-out images is enough.

    Raises:
        UsageError: its record cannot be read.
    """
    if not (path / "metrics.json").exists():
        return False
    run = read(path)
    held_out = run.identity["trained"] == "whole" and ("held-out-clean", 0.0) in run.numbers
    return run.state == "finished" or (held_out and not tested)
