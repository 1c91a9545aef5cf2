"""The folder of a WGAN run: settings and numbers, weights, a checkpoint, figures.

``metrics.json``, ``generator.safetensors``, ``critic.safetensors``, ``checkpoint.pt``,
``samples.png`` and ``history.png``. Files appear whole or not at all.
"""

import contextlib
import dataclasses
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from onelip.errors import UsageError
from onelip.evaluation.wgan_settings import WGANSettings
from onelip.replacing import replacing
from onelip.training.run_folder import environment


class WGANFolder:
    """Reads and writes the files of a run.

    Args:
        path: the folder.
        record: its file of settings and numbers.
    """

    def __init__(self, path: Path, record: str = "metrics.json") -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self._metrics = path / record
        self._made: tuple[Path, ...] = ()

    @classmethod
    def create(cls, settings: WGANSettings, path: Path | None) -> "WGANFolder":
        """A new folder with the settings in it, ``runs/wgan-DATASET-DATE-TIME`` by default.

        Raises:
            UsageError: the folder exists, or cannot be made.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        run = cls(path or Path("runs") / f"wgan-{settings.dataset}-{stamp}")
        missing = tuple(p for p in (run.path, *run.path.parents) if not p.exists())
        try:
            run.path.mkdir(parents=True)
        except FileExistsError:
            raise UsageError(
                f"{run.path} exists and is not overwritten: choose another --out, or go on with "
                f"onelip wgan --resume {run.path}"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{run.path} cannot be made: {error.strerror}; choose another --out"
            ) from None
        run._made = missing
        run.write({"wgan": dataclasses.asdict(settings), **environment(), "sessions": []})
        return run

    @classmethod
    def open(cls, path: Path) -> "WGANFolder":
        """An existing folder.

        Raises:
            UsageError: there is no readable run there.
        """
        run = cls(path)
        run.read()
        return run

    def discard(self) -> None:
        """Undo ``create`` for a run that could not start; one with a checkpoint stays."""
        if self._made and not self.checkpoint.exists():
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):  # a parent in use by now
                for parent in self._made[1:]:
                    parent.rmdir()

    def read(self) -> dict[str, Any]:
        """What the record holds."""
        try:
            content = json.loads(self._metrics.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{self.path} is no folder of a WGAN: it has no {self._metrics.name}; onelip "
                "wgan makes one"
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self._metrics} cannot be read ({error}): name the folder of another run"
            ) from None
        if not isinstance(content, dict) or not isinstance(content.get("wgan"), dict):
            raise UsageError(f"{self._metrics} holds no WGAN: name a folder written by onelip wgan")
        return content

    def write(self, entries: dict[str, Any]) -> None:
        """Add entries to the metrics."""
        content = {**(self.read() if self._metrics.exists() else {}), **entries}
        with replacing(self._metrics) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    def note_session(self) -> None:
        """Record commit, versions and machine of a process that works on this run."""
        self.write({"sessions": [*self.read().get("sessions", []), environment()]})

    @property
    def settings(self) -> WGANSettings:
        """The settings of the run."""
        try:
            return WGANSettings(**self.read()["wgan"])
        except TypeError as error:
            raise UsageError(
                f"{self._metrics} holds no valid settings ({error}): name another run"
            ) from None

    def save_weights(self, name: str, model: nn.Module) -> None:
        """Write ``NAME.safetensors``."""
        with replacing(self.path / f"{name}.safetensors") as temporary:
            weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
            temporary.write_bytes(safetensors.torch.save(weights))

    def load_weights(self, name: str, model: nn.Module) -> None:
        """Read ``NAME.safetensors`` into a model.

        Raises:
            UsageError: the file is missing, corrupt or of another model.
        """
        file = self.path / f"{name}.safetensors"
        if not file.exists():
            raise UsageError(f"{file} is missing: onelip wgan --resume {self.path} writes it")
        try:
            model.load_state_dict(safetensors.torch.load_file(file))
        except (safetensors.SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0].rstrip(":")
            raise UsageError(f"{file} is corrupt or of another {name} ({reason})") from None

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Write what resuming needs."""
        with replacing(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """What was saved last, or None.

        Raises:
            UsageError: it is corrupt.
        """
        if not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        except Exception as error:  # a damaged pickle can raise anything
            raise UsageError(
                f"{self.checkpoint} is corrupt: start again with another --out"
            ) from error
        return state


def load_generator(path: Path) -> nn.Module:
    """The generator of a run, in eval mode, from normal noise to images in [0, 1].

    ``onelip.models.generate`` draws images from it.

    Args:
        path: folder of a run, or one that holds only generator.safetensors and generator.json.

    Raises:
        UsageError: there is none, or its weights are missing, corrupt or those of another one.
    """
    path = Path(path)
    alone = (path / "generator.json").exists() and not (path / "metrics.json").exists()
    run = WGANFolder(path, "generator.json" if alone else "metrics.json")
    generator, _ = run.settings.build()
    run.load_weights("generator", generator)
    return generator.eval()
