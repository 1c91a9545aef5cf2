"""A Wasserstein distance as a run: samples, critic, checkpoints, record, figure.

A run that cannot start leaves no folder. One that was stopped goes on from its checkpoint, to the
same weights; the samples are read again and have to be the same, by their SHA-256.
"""

import math
import time
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from onelip.errors import OnelipError, SoundnessError, UsageError
from onelip.experiments.figures import new_figure
from onelip.experiments.progress import progress_bar
from onelip.experiments.record_schema import Exact, Pair, TransportRecord
from onelip.experiments.threads import use_threads
from onelip.experiments.transport.critic import build_critic
from onelip.experiments.transport.figure import plot_transport
from onelip.experiments.transport.folder import TransportFolder, described, reached
from onelip.experiments.transport.inputs import read_pair
from onelip.experiments.transport.settings import TransportSettings
from onelip.transport import (
    CriticTraining,
    LowerBound,
    Source,
    check_diameter,
    exact_distance,
    judge,
    other_seed,
    split,
)

_CHEAP = 1_000_000  # pairs of held-out samples, whose exact distance takes a second
_LARGEST = 1e150  # a diameter whose square is finite
_PIECES = 100  # of a training, between which the clock is looked at


class TransportRun:
    """Run in memory, at the checkpoint of its folder if there is one.

    Args:
        folder: with the settings.

    Raises:
        UsageError: samples, critic or settings cannot be used, or the samples have changed.
    """

    def __init__(self, folder: TransportFolder) -> None:
        new_figure(1, 1)  # fail before training
        self.folder, self.settings = folder, folder.settings
        settings = self.settings
        use_threads(settings.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        samples, self.task = read_pair(settings)
        parts = [
            split(given.values.to(device), settings.held_out, settings.seed + place)
            for place, given in enumerate(samples)
        ]
        (train_p, self.test_p), (train_q, self.test_q) = parts
        self._identify(described(samples, (self.test_p, self.test_q)))
        shape = tuple(train_p.shape[1:])
        critic = build_critic(settings, shape, (train_p, train_q)).to(train_p)
        judge(critic, self.test_p[:2], self.test_q[:2], confidence=settings.confidence)
        if settings.diameter is not None:
            if not 0 < settings.diameter < _LARGEST:
                raise UsageError(
                    f"--diameter must be positive and below {_LARGEST:g}, got {settings.diameter}"
                )
            check_diameter(settings.diameter, self.test_p, self.test_q)  # before the training, too
        self.training = CriticTraining(
            critic,
            *self._sources(train_p, train_q),
            steps=settings.steps,
            batch=settings.batch,
            lr=settings.lr,
            seed=other_seed(settings.seed) if settings.fresh else settings.seed,
        )
        self.seconds = 0.0
        with folder.load_checkpoint() as state:
            if state is not None:
                self.training.load_state_dict(state["training"])
                self.seconds = float(state["seconds"])

    @classmethod
    def create(cls, settings: TransportSettings, path: Path | None = None) -> "TransportRun":
        """Start a run in a new folder, ``runs/transport-DATE-TIME`` by default.

        Raises:
            UsageError: the folder exists, or the run could not start.
        """
        folder = TransportFolder.create(settings, path)
        try:
            return cls(folder)
        except BaseException:
            folder.discard()
            raise

    @classmethod
    def open(cls, path: Path) -> "TransportRun":
        """Open the run of an existing folder.

        Raises:
            UsageError: there is no such run, its samples have changed, or its files are damaged.
        """
        return cls(TransportFolder.open(path))

    def finish(self, *, progress: bool = True, every: float = 30.0) -> TransportRecord:
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
        self.folder.note_session()
        try:
            exact = self._exact()
            self._train(progress, every)
        except OnelipError:
            self.folder.discard()  # if it is new, and nothing is saved there yet
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
        self.folder.save_weights("critic", found.critic)
        result = reached(self.settings, self.training, found, self.seconds)
        self.folder.write({**result, **self._truth()})
        content, figure = self.folder.read(), self.folder.path / "transport.png"
        plot_transport(content, found.scores_p, found.scores_q, figure)
        return content

    def _sources(self, train_p: Tensor, train_q: Tensor) -> tuple[Source, Source]:
        """Return what to train on: samples, or the functions that draw them."""
        if self.task is None or not self.settings.fresh:
            return train_p, train_q
        return self.task.draw_p, self.task.draw_q

    def _truth(self) -> dict[str, float | None]:
        """Return the distance if it is known, with its error if it is known by drawing."""
        if self.task is None:
            return {"truth": None}
        error = {"truth_error": self.task.error} if self.task.error else {}
        return {"truth": self.task.distance, **error}

    def _identify(self, samples: Pair) -> None:
        """Record the samples read, or compare them with the record."""
        stored = self.folder.read().get("samples")
        if stored is None:
            self.folder.write({"samples": samples})
            return
        for given, before in ((samples["p"], stored["p"]), (samples["q"], stored["q"])):
            if given["sha256"] != before["sha256"]:
                name, path = given["name"], self.folder.path
                raise UsageError(f"{name} is no longer what {path} began with: start a new run")

    def _train(self, progress: bool, every: float) -> None:
        training, piece = self.training, max(1, self.settings.steps // _PIECES)
        saved = time.perf_counter()
        with progress_bar(training.step, training.steps, progress) as show:
            while training.step < training.steps:
                start = time.perf_counter()
                training.run(until=training.step + piece, progress=show)
                now = time.perf_counter()
                self.seconds += now - start
                if now - saved >= every or training.step >= training.steps:
                    state = {"training": training.state_dict(), "seconds": self.seconds}
                    self.folder.save_checkpoint(state)
                    saved = now

    def _exact(self) -> Exact | None:
        """Compute the exact distance of the held-out samples, if asked for or cheap."""
        stored = self.folder.read().get("exact")
        if stored is not None:
            return stored
        sizes = len(self.test_p), len(self.test_q)
        if not self.settings.exact and (math.prod(sizes) > _CHEAP or _solver(*sizes) is None):
            return None
        start = time.perf_counter()
        distance = exact_distance(self.test_p, self.test_q)
        entry: Exact = {
            "distance": distance,
            "seconds": round(time.perf_counter() - start, 3),
            "solver": _solver(*sizes),
        }
        self.folder.write({"exact": entry})
        return entry


def check_sandwich(found: LowerBound, exact: float) -> None:
    """Check that the critic's value on some samples is at most their exact distance.

    Raises:
        SoundnessError: it is larger.
    """
    spread = max(float((s - s.mean()).abs().max()) for s in (found.scores_p, found.scores_q))
    if not found.value <= exact + 1e-9 * max(spread, exact):
        raise SoundnessError(
            f"the critic's value {found.value!r} exceeds the exact distance {exact!r} of the same "
            "samples: please report this run"
        )


def _solver(n: int, m: int) -> str | None:
    """Return the solver of ``exact_distance`` for such sizes, with its version, if installed."""
    name = "scipy" if n == m else "pot"
    try:
        return f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return None
