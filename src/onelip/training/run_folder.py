"""A run folder: what one training run leaves behind.

``metrics.json`` (recipe, commit, versions, device, seed, times and every result),
``model.safetensors`` (weights), ``checkpoint.ckpt`` (to resume), and figures. Files appear whole or
not at all: they are written under a temporary name and renamed.
"""

import contextlib
import dataclasses
import json
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from onelip.data import SHAPES
from onelip.errors import UsageError
from onelip.models import MODELS
from onelip.recipes import Recipe
from onelip.replacing import replacing

_VERSIONED = ("onelip", "torch", "lightning", "numpy", "safetensors", "foolbox")


class RunFolder:
    """Reads and writes the files of a run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.ckpt"
        self.weights = path / "model.safetensors"
        self._metrics = path / "metrics.json"
        self._made: tuple[Path, ...] = ()

    @classmethod
    def create(cls, recipe: Recipe, path: Path | None) -> "RunFolder":
        """A new folder with the recipe in it, ``runs/NAME-DATE-TIME`` by default.

        Raises:
            UsageError: the folder exists.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        run = cls(path or Path("runs") / f"{recipe.name}-{stamp}")
        missing = tuple(p for p in (run.path, *run.path.parents) if not p.exists())
        try:
            run.path.mkdir(parents=True)
        except FileExistsError:
            raise UsageError(
                f"{run.path} exists and is not overwritten: choose another --out, or go on with "
                f"onelip train --resume {run.path}"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{run.path} cannot be made: {error.strerror}; choose another --out"
            ) from None
        run._made = missing
        run.write({"recipe": dataclasses.asdict(_plain(recipe)), **environment(), "sessions": []})
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
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
        """What ``metrics.json`` holds."""
        try:
            content = json.loads(self._metrics.read_text())
        except FileNotFoundError:
            raise UsageError(
                f"{self.path} is no run folder: it has no metrics.json; onelip train makes one"
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{self._metrics} cannot be read ({error}): name the folder of another run"
            ) from None
        if not isinstance(content, dict) or "recipe" not in content:
            raise UsageError(
                f"{self._metrics} holds no recipe: name a folder written by onelip train"
            )
        return content

    def note_session(self) -> None:
        """Record commit, versions and machine of a process that works on this run."""
        self.write({"sessions": [*self.read().get("sessions", []), environment()]})

    def write(self, entries: dict[str, Any]) -> None:
        """Add entries to ``metrics.json``."""
        content = {**(self.read() if self._metrics.exists() else {}), **entries}
        with replacing(self._metrics) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    @property
    def recipe(self) -> Recipe:
        """The recipe of the run."""
        content = self.read()["recipe"]
        try:
            return Recipe(**{**content, "eps": tuple(content["eps"])})
        except (TypeError, KeyError) as error:
            raise UsageError(
                f"{self._metrics} holds no valid recipe ({error}): name the folder of another run"
            ) from None

    @property
    def data_folder(self) -> Path | None:
        """The folder that the data came from, None for a download."""
        folder = self.read().get("data", {}).get("folder")
        return Path(folder) if folder else None

    def save_model(self, model: nn.Module) -> None:
        """Write the weights."""
        with replacing(self.weights) as temporary:
            weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
            temporary.write_bytes(safetensors.torch.save(weights))

    def load_model(self) -> nn.Module:
        """The trained model, in eval mode.

        Raises:
            UsageError: the weights are missing, corrupt, or those of another model.
        """
        if not self.weights.exists():
            raise UsageError(
                f"{self.path} has no weights yet: finish it with onelip train --resume {self.path}"
            )
        model = build_model(self.recipe)
        try:
            model.load_state_dict(safetensors.torch.load_file(self.weights))
        except (safetensors.SafetensorError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"{self.weights} is corrupt or of another model ({reason.rstrip(':')}): write it "
                f"again with onelip train --resume {self.path}"
            ) from None
        return model.eval()


def build_model(recipe: Recipe) -> nn.Module:
    """The untrained model of a recipe.

    Raises:
        UsageError: the recipe names no known model or data set, or wrong arguments.
    """
    if recipe.model not in MODELS:
        raise UsageError(f"no model {recipe.model!r}; known: {', '.join(MODELS)}")
    shape, classes = SHAPES[recipe.dataset]
    try:
        model = MODELS[recipe.model](shape, classes, **recipe.network)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{recipe.model} cannot be built: {error}") from None
    if not any(True for _ in model.parameters()):
        raise UsageError(f"{recipe.model} has no weights to train: give it a layer")
    return model


def use_threads(recipe: Recipe) -> None:
    """Let torch use as many CPU threads as the recipe says."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)


def environment() -> dict[str, Any]:
    """What else a number depends on: commit, versions, machine."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor()
    return {
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "device": device or platform.machine(),
        "threads": torch.get_num_threads(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """The commit of the library's checkout, with ``+`` if files differ from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *words], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not installed elsewhere
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _plain(recipe: Recipe) -> Recipe:
    """The recipe with plain dictionaries, which can be written as JSON."""
    return dataclasses.replace(
        recipe, network=dict(recipe.network), objective=dict(recipe.objective)
    )
