"""A Wasserstein distance as a run: samples, critic, checkpoints, record, figure.

Everything that can be refused is refused before there is a folder. A run that was stopped goes on
from its checkpoint, to the same weights; the samples are read again and have to be the same, by
their SHA-256.
"""

import contextlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from onelip.errors import OnelipError, SoundnessError, UsageError, missing_extra
from onelip.evaluation.figures import pyplot
from onelip.evaluation.transport_figure import plot_transport
from onelip.evaluation.transport_inputs import (
    TransportSettings,
    build_critic,
    read_pair,
    sha256,
)
from onelip.evaluation.transport_record import CRITIC, RECORD, described, reached, read_record
from onelip.replacing import replacing
from onelip.training.run_folder import environment
from onelip.transport import CriticTraining, LowerBound, exact_distance, judge, split

_CHEAP = 1_000_000  # pairs of held-out samples, whose exact distance takes a second
_PIECES = 100  # of a training, between which the clock is looked at
_CHECKPOINT = "checkpoint.pt"


class TransportRun:
    """A run: what it needs in memory, and its folder.

    Args:
        path: the folder; it is not made here.
        settings: of the run.

    Raises:
        UsageError: samples, critic or settings cannot be used.
    """

    def __init__(self, path: Path, settings: TransportSettings) -> None:
        pyplot()  # fail before training
        if settings.threads:
            torch.set_num_threads(settings.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.path, self.settings = path, settings
        self.samples, self.truth = read_pair(settings)
        parts = [
            split(samples.values.to(device), settings.held_out, settings.seed + place)
            for place, samples in enumerate(self.samples)
        ]
        (train_p, self.test_p), (train_q, self.test_q) = parts
        critic = build_critic(settings, tuple(train_p.shape[1:])).to(train_p)
        judge(critic, self.test_p[:2], self.test_q[:2], confidence=settings.confidence)
        if settings.diameter is not None and not 0 < settings.diameter < math.inf:
            raise UsageError(f"--diameter must be positive, got {settings.diameter}")
        self.training = CriticTraining(
            critic,
            train_p,
            train_q,
            steps=settings.steps,
            batch=settings.batch,
            lr=settings.lr,
            seed=settings.seed,
        )
        self.seconds = 0.0
        self._made: tuple[Path, ...] = ()

    @classmethod
    def create(cls, settings: TransportSettings, path: Path | None = None) -> "TransportRun":
        """A new folder, ``runs/transport-DATE-TIME`` by default.

        Raises:
            UsageError: the folder exists, or the run could not start.
        """
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        path = path or Path("runs") / f"transport-{stamp}"
        if path.exists():
            raise _exists(path)
        run = cls(path, settings)
        missing = tuple(p for p in (path, *path.parents) if not p.exists())
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise _exists(path) from None
        except OSError as error:
            raise UsageError(
                f"{path} cannot be made: {error.strerror}; choose another --out"
            ) from None
        run._made = missing
        run.write(
            {
                "transport": settings.as_dict(),
                **environment(),
                "samples": described(run.samples, (run.test_p, run.test_q)),
                "sessions": [],
            }
        )
        return run

    @classmethod
    def open(cls, path: Path) -> "TransportRun":
        """An existing folder, at its checkpoint.

        Raises:
            UsageError: there is no such run, its samples have changed, or its files are damaged.
        """
        content = read_record(path)
        try:
            settings = TransportSettings.of(content["transport"])
            stored = [content["samples"][name]["sha256"] for name in ("p", "q")]
        except (AttributeError, TypeError, KeyError) as error:
            raise UsageError(f"{path / RECORD} is damaged ({error}): start a new run") from None
        run = cls(path, settings)
        for samples, digest in zip(run.samples, stored, strict=True):
            if sha256(samples.values) != digest:
                raise UsageError(
                    f"{samples.name} is no longer what {path} began with: start a new run"
                )
        run._load()
        return run

    def finish(self, *, progress: bool = True, every: float = 30.0) -> dict[str, Any]:
        """Train what is left, judge, record and draw.

        Args:
            progress: show a progress bar.
            every: seconds between checkpoints.

        Returns:
            What ``metrics.json`` holds then.

        Raises:
            NonFiniteError: the training diverged; the last checkpoint stays.
            SoundnessError: the critic's value exceeds the exact distance of the same samples.
        """
        self.write({"sessions": [*read_record(self.path)["sessions"], environment()]})
        try:
            exact = self._exact()
            self._train(progress, every)
        except OnelipError:
            self._discard()
            raise
        found = judge(
            self.training.critic,
            self.test_p,
            self.test_q,
            confidence=self.settings.confidence,
            diameter=self.settings.diameter,
        )
        if exact is not None:
            check_sandwich(found, exact["distance"])
        with replacing(self.path / CRITIC) as temporary:
            weights = {k: v.cpu().contiguous() for k, v in found.critic.state_dict().items()}
            temporary.write_bytes(safetensors.torch.save(weights))
        result = reached(self.settings, self.training, found, self.seconds)
        self.write({**result, "truth": self.truth})
        content = read_record(self.path)
        plot_transport(content, found.scores_p, found.scores_q, self.path / "transport.png")
        return content

    def write(self, entries: dict[str, Any]) -> None:
        """Add entries to ``metrics.json``."""
        target = self.path / RECORD
        content = {**(read_record(self.path) if target.exists() else {}), **entries}
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    def _discard(self) -> None:
        """Undo ``create`` for a run that could not start; one with a checkpoint stays."""
        if self._made and not (self.path / _CHECKPOINT).exists():
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):  # a parent in use by now
                for parent in self._made[1:]:
                    parent.rmdir()

    def _train(self, progress: bool, every: float) -> None:
        training, piece = self.training, max(1, self.settings.steps // _PIECES)
        saved = time.perf_counter()
        with _bar(training, progress) as show:
            while training.step < training.steps:
                start = time.perf_counter()
                training.run(until=training.step + piece, progress=show)
                now = time.perf_counter()
                self.seconds += now - start
                if now - saved >= every or training.step >= training.steps:
                    self._save()
                    saved = now

    def _save(self) -> None:
        with replacing(self.path / _CHECKPOINT) as temporary:
            torch.save({"training": self.training.state_dict(), "seconds": self.seconds}, temporary)

    def _load(self) -> None:
        file = self.path / _CHECKPOINT
        if not file.exists():
            return
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
            self.training.load_state_dict(content["training"])
            self.seconds = float(content["seconds"])
        except Exception as error:  # a damaged pickle can raise anything
            raise UsageError(
                f"{file} is corrupt or of another critic: start again with another --out"
            ) from error

    def _exact(self) -> dict[str, Any] | None:
        """Exact distance of the held-out samples, if it was asked for or is cheap."""
        stored: dict[str, Any] | None = read_record(self.path).get("exact")
        if stored is not None:
            return stored
        sizes = len(self.test_p), len(self.test_q)
        if not self.settings.exact and (math.prod(sizes) > _CHEAP or _solver(*sizes) is None):
            return None
        start = time.perf_counter()
        distance = exact_distance(self.test_p, self.test_q)
        entry = {
            "distance": distance,
            "seconds": round(time.perf_counter() - start, 3),
            "solver": _solver(*sizes),
        }
        self.write({"exact": entry})
        return entry


def check_sandwich(found: LowerBound, exact: float) -> None:
    """The critic's value on some samples is at most their exact distance.

    Raises:
        SoundnessError: it is larger.
    """
    scale = max(float(scores.abs().max()) for scores in (found.scores_p, found.scores_q))
    if found.value > exact + 1e-9 * max(scale, exact):
        raise SoundnessError(
            f"the critic's value {found.value!r} exceeds the exact distance {exact!r} of the same "
            "samples: please report this run"
        )


def _solver(n: int, m: int) -> str | None:
    """What ``exact_distance`` uses for such sizes, with its version, if it is installed."""
    name = "scipy" if n == m else "pot"
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return None


def _exists(path: Path) -> UsageError:
    return UsageError(
        f"{path} exists and is not overwritten: choose another --out, or go on with "
        f"onelip transport --resume {path}"
    )


@contextlib.contextmanager
def _bar(training: CriticTraining, wanted: bool) -> Iterator[Any]:
    """A progress bar's callback, or None."""
    if not wanted or training.step >= training.steps:
        yield None
        return
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise missing_extra("tqdm", "transport") from error

    def show(step: int, value: float) -> None:
        bar.set_postfix(value=f"{value:.4f}", refresh=False)
        bar.update(step - bar.n)

    with tqdm(
        total=training.steps, initial=training.step, unit="step", mininterval=0.5, ncols=100
    ) as bar:
        yield show
