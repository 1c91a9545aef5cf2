r"""Lower bounds of the Wasserstein-1 distance from 1-Lipschitz critics.

By Kantorovich and Rubinstein

.. math:: W_1(P, Q) = \sup_{|f|_L \le 1} E_P f - E_Q f,

so every critic f with a *proved* constant L gives :math:`(E_P f - E_Q f) / L \le W_1`. The critic
is trained on one part of the samples and judged on another that it never saw: there the difference
of the means is an unbiased estimate of :math:`E_P f - E_Q f`, with a confidence interval. On its
own training samples it would have been chosen to be large.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.errors import UsageError
from onelip.lipschitz import lipschitz_bound
from onelip.models import dense_critic
from onelip.transport.critic_training import (
    CriticTraining,
    Progress,
    Sampler,
    Source,
    check_samples,
    other_seed,
)
from onelip.transport.judgement import LowerBound, check_diameter, judge


def wasserstein_lower_bound(
    samples_p: Tensor,
    samples_q: Tensor,
    critic: nn.Module | None = None,
    *,
    steps: int = 2000,
    batch: int = 256,
    lr: float = 1e-2,
    held_out: float = 0.5,
    fresh: tuple[Sampler, Sampler] | None = None,
    confidence: float = 0.95,
    diameter: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LowerBound:
    """Train a critic on a part of the samples, and judge it on the rest.

    Cost: ``steps`` training steps, one proved norm per layer, one pass of the held-out samples.

    Args:
        samples_p: independent samples ``(n, ...)`` of P, floats.
        samples_q: independent samples ``(m, ...)`` of Q, of the same shape.
        critic: samples to ``(batch, 1)``, of layers whose constant is proved; trained in place. By
            default a ``dense_critic``, for images too; ``dcgan_critic`` convolves.
        steps: number of training steps.
        batch: samples of P, and of Q, in a step.
        lr: learning rate.
        held_out: share of the samples that the critic is judged on.
        fresh: functions that draw new samples of P and of Q, of a number and a generator, where
            there are such: the critic is trained on theirs, and judged on all samples.
        confidence: of the interval.
        diameter: of a set in which all samples lie, such as ``d ** 0.5`` for images of d pixels in
            [0, 1]. With it the interval holds for every number of samples; see ``judge``.
        seed: of the split, the batches, and the weights of a default critic.
        progress: called after each step with its number and the running value.

    Raises:
        UsageError: samples of different shapes, too few, or not finite.
        UnboundedModuleError: the critic has a part of which no constant is proved.
        NonFiniteError: the training diverged.

    Example:
        >>> p, q = torch.zeros(500, 1), torch.ones(500, 1)
        >>> found = wasserstein_lower_bound(p, q, steps=100)
        >>> bool(0.95 < found.value <= 1)
        True

    Reference: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", 2019; Li et al.,
    BCOP, 2019, sections 2.4 and 5.3.
    """
    check_samples(samples_p, samples_q)
    train: tuple[Source, Source]
    if fresh is None:
        train_p, test_p = split(samples_p, held_out, seed)
        train_q, test_q = split(samples_q, held_out, seed + 1)
        train, batches = (train_p, train_q), seed
    else:
        test_p, test_q = samples_p, samples_q
        train, batches = fresh, other_seed(seed)
    if diameter is not None:
        check_diameter(diameter, test_p, test_q)  # before the training, too
    if critic is None:
        critic = default_critic(samples_p, seed)
    lipschitz_bound(export(critic))  # refuse unknown layers before the training, not after it
    training = CriticTraining(critic, *train, steps=steps, batch=batch, lr=lr, seed=batches)
    training.run(progress=progress)
    found = judge(critic, test_p, test_q, confidence=confidence, diameter=diameter)
    return replace(found, history=training.history)


def split(samples: Tensor, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Shuffle samples into those to train on and those to hold out.

    Args:
        samples: ``(n, ...)``.
        held_out: share to hold out, rounded.
        seed: seed of the shuffle.

    Raises:
        UsageError: one of the two parts has fewer than two samples.
    """
    count = round(len(samples) * held_out) if 0 < held_out < 1 else 0
    if min(count, len(samples) - count) < 2:
        raise UsageError(
            f"held_out={held_out} of {len(samples)} samples does not leave two to train on and two "
            "to judge by"
        )
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    order = order.to(samples.device)
    return samples[order[count:]], samples[order[:count]]


def default_critic(samples: Tensor, seed: int) -> nn.Module:
    """Build a ``dense_critic``: on MNIST it finds more than a ``dcgan_critic``, in less time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dense_critic(math.prod(samples.shape[1:])).to(samples)
