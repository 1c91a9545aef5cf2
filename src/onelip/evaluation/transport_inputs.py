"""What ``onelip transport`` is given: its settings, the samples and the critic they stand for."""

import hashlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onelip.data.samples import FEWEST, Samples, check_pair, read_samples
from onelip.errors import OnelipError, UsageError
from onelip.evaluation.wgan_folder import load_generator
from onelip.models import dcgan_critic, dense_critic, generate
from onelip.models.families import CONVOLUTIONS, LINEAR
from onelip.recipes.recipe import check_sizes
from onelip.transport import TASKS

DRAWN = 4000
"""Samples of a task or a generator where nothing else is said."""

CRITICS: dict[str, tuple[Callable[..., nn.Module], str]] = {
    "dense": (dense_critic, "linear"),
    "dcgan": (dcgan_critic, "convolution"),
}
"""Critics by name, and what the family of their layers is called."""


@dataclass(frozen=True)
class TransportSettings:
    """What determines the result of a run; the fields are the options of ``onelip transport``.

    Intervals hold for samples of P and Q that are independent of each other: two draws from one
    finite set, which share samples, are not.

    Args:
        p: what ``read_samples`` understands, or the folder of a generator by ``onelip wgan``.
        q: likewise.
        task: a pair of distributions with a known distance, instead of both.
        critic: ``dense``, or ``dcgan``, which convolves images; by default the second for a layer
            that only convolves, such as ``bcop``, else the first.
        layer: family of the convolutions of a ``dcgan`` critic, of the matrices of a ``dense`` one.
        activation: of the critic; its own default if it is not given, as for its layers.
        widths: of its layers.
        steps: of the training.
        batch: samples of each distribution in a step.
        lr: largest learning rate.
        samples: of each distribution; all that there are by default.
        held_out: share of them on which the critic is judged.
        confidence: of the interval.
        diameter: of a set that holds all samples; makes the interval hold for every sample size.
        exact: compute the exact distance of the held-out samples, however long it takes.
        seed: of samples, weights and batches.
        threads: of torch; 0 leaves them alone.
        data: folder of data sets.
    """

    p: str | None = None
    q: str | None = None
    task: str | None = None
    critic: str | None = None
    layer: str | None = None
    activation: str | None = None
    widths: tuple[int, ...] | None = None
    steps: int = 2000
    batch: int = 256
    lr: float = 1e-2
    samples: int | None = None
    held_out: float = 0.5
    confidence: float = 0.95
    diameter: float | None = None
    exact: bool = False
    seed: int = 0
    threads: int = 0
    data: str | None = None

    def __post_init__(self) -> None:
        named = sum(word is not None for word in (self.p, self.q))
        if named != (2 if self.task is None else 0):
            raise UsageError("name two samples, onelip transport P Q, or one --task NAME")
        if self.task is not None and self.task not in TASKS:
            raise UsageError(f"no task {self.task!r}; known: {', '.join(TASKS)}")
        if self.critic not in (None, *CRITICS):
            raise UsageError(f"no critic {self.critic!r}; known: {', '.join(CRITICS)}")
        check_sizes(self)
        if self.seed < 0:
            raise UsageError(f"--seed must not be negative, got {self.seed}")
        if self.threads < 0:
            raise UsageError(f"--threads must not be negative, got {self.threads}")
        if self.widths is not None and (not self.widths or min(self.widths) < 1):
            raise UsageError(f"--widths must be positive, such as 64,64, got {self.widths}")


def read_pair(settings: TransportSettings) -> tuple[tuple[Samples, Samples], float | None]:
    """Samples of P and of Q, and the distance if it is known.

    Raises:
        UsageError: they cannot be read, or they do not belong together.
    """
    seeds = 2 * settings.seed, 2 * settings.seed + 1
    if settings.task is not None:
        task, count = TASKS[settings.task], _count(settings)
        of_p, of_q = task.sample(count, settings.seed)
        return (Samples(of_p, settings.task), Samples(of_q, settings.task)), task.distance
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
    """Samples to draw where there is no end of them."""
    count = DRAWN if settings.samples is None else settings.samples
    if count < FEWEST:
        raise UsageError(f"--samples {count}: a distance needs at least {FEWEST}")
    return count


def chosen_critic(settings: TransportSettings, shape: tuple[int, ...]) -> dict[str, Any]:
    """Kind, layer, activation and widths of the critic for samples of a shape.

    Raises:
        UsageError: a convolutional critic for samples that are no images.
    """
    convolves = settings.layer in CONVOLUTIONS and settings.layer not in LINEAR
    kind = settings.critic or ("dcgan" if convolves else "dense")
    if kind == "dcgan" and len(shape) != 3:
        raise UsageError(f"samples of shape {shape} are no images: --critic dense")
    build, family = CRITICS[kind]
    defaults = {name: p.default for name, p in inspect.signature(build).parameters.items()}
    return {
        "kind": kind,
        "layer": settings.layer or defaults[family],
        "activation": settings.activation or defaults["activation"],
        "widths": list(settings.widths or defaults["widths"]),
    }


def build_critic(settings: TransportSettings, shape: tuple[int, ...]) -> nn.Module:
    """The untrained critic for samples of a shape.

    Raises:
        UsageError: a name is not known, or the samples are no images.
    """
    chosen = chosen_critic(settings, shape)
    build, family = CRITICS[chosen["kind"]]
    size: Any = shape if build is dcgan_critic else math.prod(shape)
    options = {family: chosen["layer"], "activation": chosen["activation"]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            critic = build(size, tuple(chosen["widths"]), **options).eval()
            critic(torch.zeros(1, *shape))  # groups of an activation may not fit
        except OnelipError:
            raise
        except ValueError as error:
            raise UsageError(f"the critic cannot be built: {error}") from None
    return critic


def sha256(values: Tensor) -> str:
    """Of the numbers in memory, as ``hashlib.sha256(array.tobytes())`` gives it."""
    return hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()
