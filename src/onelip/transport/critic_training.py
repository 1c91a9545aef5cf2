"""Training of a critic: the Kantorovich-Rubinstein dual as a stochastic maximisation."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from onelip.errors import NonFiniteError, UsageError
from onelip.layers import LipschitzExtension, computed_once

Progress = Callable[[int, float], None]
"""Callback after a step, with the number of steps done and the last running value."""

Sampler = Callable[[int, torch.Generator], Tensor]
"""Draws a number of samples from a generator."""

Source = Tensor | Sampler
"""Samples, or what draws new ones."""

_POINTS = 200  # of the history
_TEMPERATURE, _SMOOTH = 0.15, 0.8  # of the maxima of extensions at first; share of steps they fall


class CriticTraining:
    """Maximise ``mean f(P) - mean f(Q)`` over the weights of a critic f, in place.

    Adam, with a learning rate that falls to 0 along half a cosine. Batches are drawn by a generator
    of its own, with replacement from samples, so that a run which was stopped and loaded again
    ends with the same weights. A ``LipschitzExtension`` takes smooth maxima at first: their
    temperature falls from 0.15 to 0 in four fifths of the steps.

    Cost: ``steps`` forward and backward passes of ``2 batch`` samples.

    Args:
        critic: a network of 1-Lipschitz layers, samples to ``(batch, 1)``; its weights are changed.
        p: samples ``(n, ...)`` of P, or a function of a number and a generator that draws so many.
        q: samples ``(m, ...)`` of Q, of the same shape otherwise, or likewise.
        steps: number of optimizer steps.
        batch: samples of P, and of Q, in a step.
        lr: largest learning rate.
        seed: seed of the batches.

    Raises:
        UsageError: samples of different shapes, or of none; no positive number of steps, batch, lr;
            a critic without weights.

    Example:
        >>> from onelip.models import dense_critic
        >>> p, q = torch.zeros(20, 2), torch.ones(20, 2)
        >>> training = CriticTraining(dense_critic(2, (8,)), p, q, steps=150)
        >>> training.run()
        >>> bool(training.history[-1][1] > 1.3)  # sqrt(2) at most
        True

    Reference: Arjovsky et al., "Wasserstein GAN", 2017; Li et al., "Preventing gradient attenuation
    in Lipschitz constrained convolutional networks" (BCOP), 2019, section 2.4.
    """

    def __init__(
        self,
        critic: nn.Module,
        p: Source,
        q: Source,
        *,
        steps: int,
        batch: int = 256,
        lr: float = 1e-2,
        seed: int = 0,
    ) -> None:
        random = torch.Generator().manual_seed(seed)
        example = drawn(p, 1, random), drawn(q, 1, random)
        whole = [s if isinstance(s, Tensor) else e for s, e in zip((p, q), example, strict=True)]
        check_samples(*whole)
        if steps < 1 or batch < 1 or not 0 < lr < math.inf:
            raise UsageError(f"steps, batch and lr must be positive, got {steps}, {batch} and {lr}")
        if not any(weight.requires_grad for weight in critic.parameters()):
            raise UsageError("the critic has no weights to train: judge() takes it as it is")
        self.critic, self._sources = critic, (p, q)
        self.shape = tuple(whole[0].shape[1:])
        self.steps, self.batch, self.step = steps, batch, 0
        self.history: list[tuple[int, float]] = []
        self._window: list[float] = []
        self._random = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(critic.parameters(), lr)
        self._schedule = LambdaLR(
            self._optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2
        )

    def run(self, until: int | None = None, progress: Progress | None = None) -> None:
        """Train up to a step, or to the end.

        Args:
            until: the step to stop at; None for the last.
            progress: called after each step.

        Raises:
            NonFiniteError: the critic's values are no longer finite.
        """
        self.critic.train()
        last = self.steps if until is None else min(until, self.steps)
        for _ in range(self.step, last):
            self._window.append(self._ascend())
            self.step += 1
            if is_noted(self.step, self.steps):
                self._note()
            if progress is not None:
                progress(self.step, self.history[-1][1] if self.history else self._window[-1])

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a training continues to the same weights."""
        return {
            "critic": self.critic.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "random": self._random.get_state(),
            "step": self.step,
            "history": list(self.history),
            "window": list(self._window),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of the same critic, samples and settings."""
        self.critic.load_state_dict(state["critic"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._random.set_state(state["random"])
        self.step = state["step"]
        self.history = [(step, value) for step, value in state["history"]]
        self._window = list(state["window"])

    def _ascend(self) -> float:
        """Take one step; return the value before it."""
        self._set_temperature()
        batches = [drawn(source, self.batch, self._random) for source in self._sources]
        with computed_once(self.critic):
            scores = self.critic(torch.cat(batches)).flatten()
            value = scores[: self.batch].mean() - scores[self.batch :].mean()
            self._optimizer.zero_grad()
            (-value).backward()
        self._optimizer.step()
        self._schedule.step()
        return float(value.detach())

    def _set_temperature(self) -> None:
        left = 1 - self.step / (_SMOOTH * self.steps)
        for module in self.critic.modules():
            if isinstance(module, LipschitzExtension):
                module.temperature = _TEMPERATURE * left if left > 0.01 else 0.0

    def _note(self) -> None:
        """Add the mean of the last values to the history."""
        value = math.fsum(self._window) / len(self._window)
        if not math.isfinite(value):
            raise NonFiniteError(
                f"the critic's values are not finite at step {self.step}: a smaller lr"
            )
        self.history.append((self.step, value))
        self._window = []


def is_noted(step: int, steps: int) -> bool:
    """Check whether the history has a point after this step: some 200 in all, and the last."""
    return step == steps or step % max(1, steps // _POINTS) == 0


def other_seed(seed: int) -> int:
    """Seed for samples that are independent of those of ``seed``; generators look at 32 bits."""
    return (seed + 2**31) % 2**32


def drawn(source: Source, count: int, random: torch.Generator) -> Tensor:
    """Draw samples with replacement, or new ones."""
    if not isinstance(source, Tensor):
        return source(count, random)
    rows = torch.randint(len(source), (count,), generator=random)
    return source[rows.to(source.device)]


def check_samples(p: Tensor, q: Tensor) -> None:
    """Refuse tensors that are not samples of two distributions on one space.

    Raises:
        UsageError: empty, of different shapes, no floats, or not finite.
    """
    if p.ndim < 2 or q.ndim < 2 or p.shape[1:] != q.shape[1:] or 0 in (*p.shape, *q.shape):
        raise UsageError(
            f"samples must be (n, ...) and (m, ...) of one shape, got {tuple(p.shape)} and "
            f"{tuple(q.shape)}; numbers as (n, 1)"
        )
    if p.dtype != q.dtype or not p.dtype.is_floating_point:
        raise UsageError(f"samples must be floats of one dtype, got {p.dtype} and {q.dtype}")
    if not (p.isfinite().all() and q.isfinite().all()):
        raise UsageError("samples hold infinite numbers or NaN: drop those rows")
