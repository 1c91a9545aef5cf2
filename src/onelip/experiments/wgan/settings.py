"""Settings of a WGAN, and its networks."""

from dataclasses import dataclass

import torch
from torch import nn

from onelip.experiments.settings import Settings
from onelip.image_sets import SHAPES
from onelip.models import dcgan_critic, dcgan_generator, plain_critic
from onelip.models.families import CONVOLUTIONS

PENALTY = "penalty"  # the critic that is not proved


@dataclass(frozen=True)
class WGANSettings(Settings):
    """Settings of a generator of images and its critic, the options of ``onelip wgan``.

    Args:
        dataset: of the images.
        critic: family of the proved critic's convolutions, or "penalty" for a plain critic.
        steps: of the generator.
        critic_steps: of the critic before each of them.
        batch: images in a step.
        lr: learning rate of the generator.
        critic_lr: that of the critic; by default 2e-3 if it is proved, and lr with a penalty.
        penalty: weight of the gradient penalty, with --critic penalty.
        latent: numbers of noise for one image.
        width: channels before the generator's last layer; twice as many before that.
        critic_width: channels after the critic's first layer; twice as many after the second.
        judge_steps: of a fresh critic that is trained against the final generator.
        seed: of weights, batches and noise.
        threads: of the CPU; 0 for torch's choice.
    """

    dataset: str
    critic: str = "bcop"
    steps: int = 2000
    critic_steps: int = 2
    batch: int = 64
    lr: float = 5e-4
    critic_lr: float | None = None
    penalty: float = 10.0
    latent: int = 64
    width: int = 32
    critic_width: int = 16
    judge_steps: int = 300
    seed: int = 0
    threads: int = 0

    def check(self) -> None:
        """Refuse values that no run can have."""
        self.require_known("dataset", SHAPES, called="data set")
        self.require_known("critic", (*CONVOLUTIONS, PENALTY))
        self.require_positive("width", "critic_width", "judge_steps")
        self.require_not_negative("threads")

    @property
    def run_name(self) -> str:
        """Beginning of the name of a run folder."""
        return f"wgan-{self.dataset}"

    @property
    def critic_rate(self) -> float:
        """Learning rate of the critic."""
        if self.critic_lr is not None:
            return self.critic_lr
        return self.lr if self.critic == PENALTY else 2e-3

    def build(self) -> tuple[nn.Sequential, nn.Sequential]:
        """Build untrained generator and critic, with the weights of the seed.

        Raises:
            UsageError: a number does not fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._generator(), self.new_critic(self.critic)

    def new_critic(self, name: str) -> nn.Sequential:
        """Build a critic of a family, with random weights."""
        shape, widths = SHAPES[self.dataset][0], (self.critic_width, 2 * self.critic_width)
        if name == PENALTY:
            return plain_critic(shape, widths=widths)
        return dcgan_critic(shape, widths, convolution=name)  # type: ignore[arg-type]

    def _generator(self) -> nn.Sequential:
        shape, widths = SHAPES[self.dataset][0], (2 * self.width, self.width)
        return dcgan_generator(shape, self.latent, widths=widths)
