"""Settings of ``onelip transport``."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from onelip.errors import UsageError
from onelip.experiments.settings import Settings
from onelip.models import dcgan_critic, dense_critic, extension_critic
from onelip.transport import check_task

CRITICS: dict[str, tuple[Callable[..., nn.Module], str | None]] = {
    "dense": (dense_critic, "linear"),
    "dcgan": (dcgan_critic, "convolution"),
    "extension": (extension_critic, None),
}
"""Critics by name, and what the family of their layers is called, if they have one."""


@dataclass(frozen=True)
class TransportSettings(Settings):
    """Settings of a lower bound of a Wasserstein distance, the options of ``onelip transport``.

    Intervals hold for samples of P and Q that are independent of each other: two draws from one
    finite set, which share samples, are not.

    Args:
        p: what ``read_samples`` understands, or the folder of a generator by ``onelip wgan``.
        q: likewise.
        task: a pair of distributions with a known distance, instead of both.
        fresh: train on samples of the task that are drawn at each step; those of ``samples`` that
            are not held out only give the critic its scale.
        critic: ``dense``; ``dcgan``, which convolves images; or ``extension``, a trained Lipschitz
            extension; by default the second for a layer that only convolves, such as ``bcop``,
            else the first.
        layer: family of the convolutions of a ``dcgan`` critic, of the matrices of a ``dense`` one.
        activation: of the critic; its own default if it is not given, as for its layers.
        widths: of its layers; of an extension the number of points.
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
    fresh: bool = False
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

    def check(self) -> None:
        """Refuse values that no run can have."""
        named = sum(word is not None for word in (self.p, self.q))
        if named != (2 if self.task is None else 0):
            raise UsageError("name two samples, onelip transport P Q, or one --task NAME")
        if self.task is not None:
            check_task(self.task)
        elif self.fresh:
            raise UsageError("--fresh draws from a --task: of other samples there are no more")
        if self.critic not in (None, *CRITICS):
            raise UsageError(f"no critic {self.critic!r}; known: {', '.join(CRITICS)}")
        if self.critic == "extension" and (self.layer or self.activation):
            raise UsageError("an extension has no --layer and no --activation: leave them out")
        self.require_not_negative("seed", "threads")
        if self.widths is not None and (not self.widths or min(self.widths) < 1):
            raise UsageError(f"--widths must be positive, such as 64,64, got {self.widths}")

    @property
    def run_name(self) -> str:
        """Beginning of the name of a run folder."""
        return "transport"
