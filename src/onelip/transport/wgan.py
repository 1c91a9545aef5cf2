"""Wasserstein GANs, with a critic proved 1-Lipschitz or drawn to it by a penalty."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.layers import computed_once
from onelip.lipschitz import lipschitz_bound
from onelip.models.generator import generate, latent_features
from onelip.transport._gradient_penalty import gradient_penalty
from onelip.transport.critic_training import check_samples, drawn, is_noted

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_JUDGED = 4  # batches in each


class WGAN:
    """Training of a generator against a critic that estimates Wasserstein-1 from real images.

    The critic ascends ``mean f(x) - mean f(G(z))``, the generator descends it. Without a penalty
    the critic must be a network whose Lipschitz constant is proved: its value on any two batches,
    divided by that constant, is a lower bound of the distance between the two batches. With a
    penalty it is any network, its gradients are drawn to length 1, and its value bounds nothing.

    Args:
        generator: from normal noise ``(batch, latent)`` to images, with a dense layer first.
        critic: from images to ``(batch, 1)``.
        images: real images, floats of shape ``(n, ...)``.
        steps: of the generator.
        critic_steps: of the critic before each step of the generator.
        batch: images in a step.
        lr: learning rate of the generator.
        critic_lr: that of the critic; None for the same.
        betas: of Adam.
        penalty: weight of the gradient penalty; None for a proved critic.
        seed: of batches and noise.

    Raises:
        UsageError: a number or a shape does not fit.
        UnboundedModuleError: there is no penalty, and the critic's constant is not proved.

    Example:
        >>> import torch
        >>> from onelip import layers, models
        >>> generator = models.dcgan_generator((1, 4, 4), 2, widths=(4,))
        >>> critic = torch.nn.Sequential(torch.nn.Flatten(), layers.CholeskyLinear(16, 1))
        >>> gan = WGAN(generator, critic, torch.rand(50, 1, 4, 4), steps=2, batch=10)
        >>> gan.run()
        >>> gan.step
        2

    Reference: Arjovsky et al., "Wasserstein Generative Adversarial Networks", ICML 2017; Gulrajani
        et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, for the penalty; Anil et al.,
        "Sorting out Lipschitz function approximation", ICML 2019, for 1-Lipschitz layers.
    """

    def __init__(
        self,
        generator: nn.Module,
        critic: nn.Module,
        images: Tensor,
        *,
        steps: int,
        critic_steps: int = 5,
        batch: int = 64,
        lr: float = 2e-4,
        critic_lr: float | None = None,
        betas: tuple[float, float] = (0.5, 0.9),
        penalty: float | None = None,
        seed: int = 0,
    ) -> None:
        critic_lr = lr if critic_lr is None else critic_lr
        if min(steps, critic_steps) < 1 or not (0 < lr < math.inf and 0 < critic_lr < math.inf):
            raise UsageError(
                f"steps={steps}, critic_steps={critic_steps}, lr={lr} and critic_lr={critic_lr} "
                "must be positive"
            )
        if penalty is not None and not 0 < penalty < math.inf:
            raise UsageError(f"penalty={penalty} must be positive, or None for a proved critic")
        if not 2 <= batch <= len(images):
            raise UsageError(f"batch={batch} must lie between 2 and the {len(images)} images")
        self.generator, self.critic, self.images = generator, critic, images
        self.steps, self.critic_steps, self.batch = steps, critic_steps, batch
        self.latent, self.penalty = latent_features(generator), penalty
        check_samples(images, generate(generator, 2).to(images))
        if penalty is None:
            _refuse_unproved(critic)
        else:
            _refuse_batch_norm(critic)
        self._descent = torch.optim.Adam(generator.parameters(), lr=lr, betas=betas)
        self._ascent = torch.optim.Adam(critic.parameters(), lr=critic_lr, betas=betas)
        self._random = torch.Generator().manual_seed(seed)
        self.step = 0
        self.history: list[tuple[int, float]] = []

    def run(
        self, until: int | None = None, progress: Callable[[int, float], None] | None = None
    ) -> None:
        """Train from the current step.

        Args:
            until: stop after this step; None for all.
            progress: called with the step and the last value of the history.

        Raises:
            NonFiniteError: the critic's value became infinite or NaN.
        """
        self.generator.train()
        self.critic.train()
        while self.step < min(self.steps, self.steps if until is None else until):
            for _ in range(self.critic_steps):
                self._ascend()
            self._descend()
            self.step += 1
            if is_noted(self.step, self.steps):
                self.history.append((self.step, self._value()))
            if progress:
                progress(self.step, self.history[-1][1] if self.history else float("nan"))

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a training continues to the same weights."""
        return {
            "generator": self.generator.state_dict(),
            "critic": self.critic.state_dict(),
            "descent": self._descent.state_dict(),
            "ascent": self._ascent.state_dict(),
            "random": self._random.get_state(),
            "step": self.step,
            "history": list(self.history),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state of the same networks and settings."""
        self.generator.load_state_dict(state["generator"])
        self.critic.load_state_dict(state["critic"])
        self._descent.load_state_dict(state["descent"])
        self._ascent.load_state_dict(state["ascent"])
        self._random.set_state(state["random"])
        self.step = state["step"]
        self.history = [(int(step), float(value)) for step, value in state["history"]]

    def _ascend(self) -> None:
        """Take one step of the critic, down the negative gap."""
        real = self._real(self.batch)
        with torch.no_grad():
            fake = self.generator(self._noise(self.batch))
        with computed_once(self.critic):
            gap = self.critic(fake).mean() - self.critic(real).mean()
            if self.penalty is not None:
                # Points between real and generated images, where the optimal slope is 1.
                share = torch.rand(len(real), generator=self._random).to(real)
                gap = gap + self.penalty * gradient_penalty(self.critic, real, fake, share)
            _update(self._ascent, gap)

    def _descend(self) -> None:
        """Take one step of the generator, up the critic's scores."""
        with computed_once(self.critic):
            _update(self._descent, -self.critic(self.generator(self._noise(self.batch))).mean())

    @torch.no_grad()
    def _value(self) -> float:
        """Critic's gap on fresh batches, divided by its constant if that is proved."""
        count = min(_JUDGED * self.batch, len(self.images))
        real, fake = self._real(count), self.generator.eval()(self._noise(count))
        with computed_once(self.critic.eval()):
            value = float(self.critic(real).double().mean() - self.critic(fake).double().mean())
        if self.penalty is None:
            # A constant critic has the bound 0 and the value 0.
            value /= float(lipschitz_bound(self.critic)) or 1.0
        self.generator.train()
        self.critic.train()
        return value

    def _real(self, count: int) -> Tensor:
        return drawn(self.images, count, self._random)

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self.latent, generator=self._random).to(self.images)


def _refuse_unproved(critic: nn.Module) -> None:
    """Refuse a critic without a penalty whose constant is not proved."""
    try:
        lipschitz_bound(export(critic))
    except UnboundedModuleError as error:
        raise UnboundedModuleError(
            f"{error}; build the critic of 1-Lipschitz layers, as dcgan_critic does, or train it "
            "with penalty=10"
        ) from error


def _refuse_batch_norm(critic: nn.Module) -> None:
    """Refuse batch norm under a penalty: it mixes the gradients of single images."""
    if any(isinstance(part, _BATCH_NORM) for part in critic.modules()):
        raise UsageError(
            "a penalty is about the gradient of single images, which batch norm mixes: take the "
            "batch norm out of the critic"
        )


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step on the weights that the optimizer holds, and on no others."""
    if not torch.isfinite(loss):
        raise NonFiniteError(f"the loss became {loss.item()}: try a smaller learning rate")
    weights = optimizer.param_groups[0]["params"]
    # Gradients of these weights only: the other network keeps its own.
    for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = slope
    optimizer.step()
    optimizer.zero_grad()
