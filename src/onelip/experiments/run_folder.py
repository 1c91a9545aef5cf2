"""Run folder: the files of a run of some command.

A record (``metrics.json``: settings, commit, versions, device, times and every result), weights
(``NAME.safetensors``) and a checkpoint (to resume). Files appear whole or not at all: they are
written under a temporary name and renamed.
"""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import safetensors
import safetensors.torch
import torch
from torch import nn

from onelip.atomic_files import atomic_write
from onelip.errors import UsageError
from onelip.experiments.provenance import environment
from onelip.experiments.record_schema import checked, parsed
from onelip.experiments.settings import Settings

_Settings = TypeVar("_Settings", bound=Settings)
_Record = TypeVar("_Record")


class RunFolder(Generic[_Settings, _Record]):
    """Reader and writer of the files of a run; each kind of run has a typed subclass.

    Args:
        path: the folder; it is not made here.
        record: name of its record.
    """

    command: ClassVar[str]
    """Command that makes the folder and resumes it: ``onelip COMMAND --resume PATH``."""

    key: ClassVar[str]
    """Key of the settings in the record."""

    settings_type: type[_Settings]
    """Type of the settings of the run."""

    schema: type[_Record]
    """Type of the record."""

    suffix: ClassVar[str] = ".pt"
    """Suffix of the checkpoint."""

    def __init__(self, path: Path, record: str = "metrics.json") -> None:
        self.path = path
        self.record = path / record
        self.checkpoint = path / f"checkpoint{self.suffix}"
        self._made: tuple[Path, ...] = ()

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open an existing folder.

        Raises:
            UsageError: there is no readable run of this command there.
        """
        run = cls(Path(path))
        run.read()
        return run

    @classmethod
    def create(
        cls, settings: _Settings, path: Path | None = None, entries: Mapping[str, Any] | None = None
    ) -> Self:
        """Make a new folder with the settings in it, ``runs/NAME-DATE-TIME`` by default.

        Args:
            settings: of the run.
            path: of the folder.
            entries: of the record that are known before the run, by key.

        Raises:
            UsageError: the folder exists, or cannot be made.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        run = cls(path or Path("runs") / f"{settings.run_name}-{stamp}")
        missing = tuple(p for p in (run.path, *run.path.parents) if not p.exists())
        try:
            run.path.mkdir(parents=True)
        except FileExistsError:
            raise UsageError(
                f"{run.path} exists and is not overwritten: choose another --out, or go on with "
                f"{run.resume}"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{run.path} cannot be made: {error.strerror}; choose another --out"
            ) from None
        run._made = missing
        run.write(
            {cls.key: settings.as_record(), **environment(), "sessions": [], **(entries or {})}
        )
        return run

    def discard(self) -> None:
        """Remove the new folder of a run that could not start; one with a checkpoint stays."""
        if self._made and not self.checkpoint.exists():
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):  # a parent in use by now
                for parent in self._made[1:]:
                    parent.rmdir()

    @property
    def settings(self) -> _Settings:
        """Settings of the run.

        Raises:
            UsageError: the record holds no valid ones.
        """
        stored = self._content()[self.key]
        try:
            return self.settings_type.from_record(stored)
        except ValueError as error:
            raise UsageError(
                f"{self.record} holds no valid settings ({error}): name the folder of another run"
            ) from None

    @property
    def resume(self) -> str:
        """Command that resumes the run."""
        return f"onelip {self.command} --resume {self.path}"

    def read(self) -> _Record:
        """Read the record, checked against its schema.

        Raises:
            UsageError: there is no readable run of this command there.
        """
        try:
            content = parsed(self.record)
            if self.key in content:
                return checked(content, self.schema)
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{self.path} is no run folder: it has no {self.record.name}; onelip "
                f"{self.command} makes one"
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self.record} cannot be read ({error}): name the folder of another run"
            ) from None
        raise UsageError(
            f"{self.record} has no entry {self.key!r}: name a folder written by onelip "
            f"{self.command}"
        )

    def write(self, entries: Mapping[str, Any]) -> None:
        """Add entries to the record."""
        content = {**(self._content() if self.record.exists() else {}), **entries}
        with atomic_write(self.record) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _content(self) -> dict[str, Any]:
        return cast(dict[str, Any], self.read())

    def note_session(self) -> None:
        """Record commit, versions and machine of a process that works on this run."""
        self.write({"sessions": [*self._content().get("sessions", []), environment()]})

    @property
    def data_folder(self) -> Path | None:
        """Folder that the data came from, None for a download."""
        folder = self._content().get("data", {}).get("folder")
        return Path(folder) if folder else None

    def save_weights(self, name: str, model: nn.Module) -> None:
        """Write ``NAME.safetensors``."""
        with atomic_write(self._weights(name)) as temporary:
            weights = {k: v.cpu().contiguous() for k, v in model.state_dict().items()}
            temporary.write_bytes(safetensors.torch.save(weights))

    def load_weights(self, name: str, model: nn.Module) -> None:
        """Read ``NAME.safetensors`` into a model.

        Raises:
            UsageError: the file is missing, corrupt or of another model.
        """
        file = self._weights(name)
        if not file.exists():
            raise UsageError(f"{self.path} has no {name} yet: {self.resume} writes it")
        try:
            model.load_state_dict(safetensors.torch.load_file(file))
        except (safetensors.SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0].rstrip(":")
            raise UsageError(
                f"{file} is corrupt or of another {name} ({reason}): {self.resume} writes it again"
            ) from None

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write the state that resuming needs."""
        with atomic_write(self.checkpoint) as temporary:
            torch.save(state, temporary)

    @contextlib.contextmanager
    def load_checkpoint(self) -> Iterator[dict[str, Any] | None]:
        """Yield the last checkpoint, or None; errors inside are reported as a bad checkpoint.

        Raises:
            UsageError: it is corrupt or of another run.
        """
        if not self.checkpoint.exists():
            yield None
            return
        try:
            yield torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged pickle can raise anything
            raise UsageError(
                f"{self.checkpoint} is corrupt or of another run: start again with another --out"
            ) from error

    def _weights(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"
