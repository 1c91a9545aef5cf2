"""Samples of the settings of ``onelip transport``."""

import hashlib
from pathlib import Path

from torch import Tensor

from onelip.data.samples import FEWEST, Samples, check_pair, read_samples
from onelip.errors import UsageError
from onelip.experiments.transport.settings import TransportSettings
from onelip.experiments.wgan.folder import load_generator
from onelip.models import generate
from onelip.transport import KnownTask, known_task

DRAWN = 4000
"""Samples of a task or a generator where nothing else is said."""


def read_pair(settings: TransportSettings) -> tuple[tuple[Samples, Samples], KnownTask | None]:
    """Read samples of P and of Q, and the task that they are drawn from if there is one.

    Raises:
        UsageError: they cannot be read, or they do not belong together.
    """
    seeds = 2 * settings.seed, 2 * settings.seed + 1
    if settings.task is not None:
        task, count = known_task(settings.task, settings.data), _count(settings)
        of_p, of_q = task.sample(count, settings.seed)
        return (Samples(of_p, settings.task), Samples(of_q, settings.task)), task
    p, q = (
        _one(text, settings, seed)
        for text, seed in zip((settings.p or "", settings.q or ""), seeds, strict=True)
    )
    check_pair(p, q)
    return (p, q), None


def _one(text: str, settings: TransportSettings, seed: int) -> Samples:
    folder = Path(text)
    if (folder / "generator.safetensors").exists():
        images = generate(load_generator(folder), _count(settings), seed=seed)
        return Samples(images, text, "images of a generator")
    return read_samples(text, data=settings.data, count=settings.samples, seed=seed)


def _count(settings: TransportSettings) -> int:
    """Number of samples to draw from a source without end."""
    count = DRAWN if settings.samples is None else settings.samples
    if count < FEWEST:
        raise UsageError(f"--samples {count}: a distance needs at least {FEWEST}")
    return count


def sha256(values: Tensor) -> str:
    """Hash the numbers in memory, as ``hashlib.sha256(array.tobytes())`` does."""
    return hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()
