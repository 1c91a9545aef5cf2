"""Settings of a classification run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from onelip.errors import UsageError
from onelip.experiments.settings import Settings
from onelip.image_sets import OWN, SHAPES
from onelip.method_names import CERTIFICATE_METHODS, TRAINING_CONSTANTS


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Recipe(Settings):
    """One training run, from data to evaluation.

    Args:
        name: how the command line calls it.
        about: one line.
        dataset: digits, mnist, fashion-mnist, cifar10, cifar100, tiny-imagenet, or own, which
            ``--data`` names.
        model: a name in ``onelip.models.MODELS``, or of a function of your own of input shape and
            classes, as ``my_package.nets:build`` or ``nets.py:build``.
        network: keyword arguments of the model other than its defaults.
        loss: a name in ``onelip.losses.LOSSES``, or of a class of your own, likewise.
        objective: keyword arguments of the loss.
        constants: where a loss on radii takes the constants of logit differences from: ``liplt`` or
            ``product``, both on power iterations, or ``head`` alone, of a 1-Lipschitz network. The
            name of the product in older records, ``naive``, is read as ``product``.
        epochs: passes over the training split.
        batch_size: images per step, over all processes.
        lr: peak learning rate.
        optimizer: Adam, NAdam, or SGD with momentum 0.9.
        schedule: of the learning rate; see ``training.schedule``.
        weight_decay: of matrices and kernels; biases and parameters of activations do not decay.
        projection_interval: updates between projections of layers that have one (SVCM); 0 for none.
        clip_norm: largest norm of the gradient of all parameters; 0 for any.
        crop: zero padding of random crops, in pixels; 0 for none.
        flip: random horizontal flips.
        rotate: random rotations by up to this many degrees, before crops and flips; 0 for none.
        translate: random translations by up to this share of the sides, likewise; 0 for none.
        validation: images held out of the training set, for every choice; of data of your own a
            tenth by default.
        split_seed: of the choice of the held-out images, and of test images where own data have
            none.
        seed: of weights, order and augmentation.
        threads: CPU threads of a process; 0 for torch's choice. Small networks are fastest on one,
            and many times slower on two while other work keeps a core busy.
        precision: arithmetic of the training step; certificates are computed in 32 bits.
        compile: run the model through ``torch.compile``.
        certificate: what proves the radii, a name in ``onelip.certificates.METHODS``: ``product``
            of the layers' bounds, tight for 1-Lipschitz layers, ``liplt``, far tighter for ordinary
            ones, ``curvature`` of an MLP head, or another.
        eps: radii, in pixel units of [0, 1] or in those of a table, at which accuracy is reported;
            as ``[0.1,0.2]``.
        attack_samples: test images that are attacked; 0 for none.
        attack_steps: gradient steps of each attack.
        attack_restarts: random starts of each attack that has them.
    """

    name: str
    about: str
    dataset: str
    model: str
    network: Mapping[str, Any] = field(default_factory=_nothing)
    loss: str = "cross-entropy"
    objective: Mapping[str, Any] = field(default_factory=_nothing)
    constants: str = "liplt"
    epochs: int = 200
    batch_size: int = 256
    lr: float = 1e-3
    optimizer: Literal["adam", "nadam", "sgd"] = "adam"
    schedule: Literal[
        "piecewise-triangular",
        "triangular",
        "one-cycle",
        "exponential",
        "exponential-from-1/16",
        "exponential-from-1/3",
        "exponential-from-1/2",
        "steps",
    ] = "piecewise-triangular"
    weight_decay: float = 0.0
    projection_interval: int = 0
    clip_norm: float = 0.0
    crop: int = 0
    flip: bool = False
    rotate: float = 0.0
    translate: float = 0.0
    validation: int = 5000
    split_seed: int = 0
    seed: int = 0
    threads: int = 0
    precision: Literal["32", "bf16"] = "32"
    compile: bool = False
    certificate: str = "product"
    eps: tuple[float, ...] = (36 / 255, 72 / 255, 108 / 255)
    attack_samples: int = 1000
    attack_steps: int = 50
    attack_restarts: int = 1

    def check(self) -> None:
        """Refuse values that no training can have."""
        self.require_known("dataset", (*SHAPES, OWN), called="data set")
        if self.constants == "naive":  # its name in older records
            object.__setattr__(self, "constants", "product")
        self.require_known("constants", TRAINING_CONSTANTS)
        self.require_known("certificate", CERTIFICATE_METHODS)
        self.require_positive(
            "epochs", "batch_size", "lr", "validation", "attack_steps", "attack_restarts"
        )
        self.require_not_negative(
            *("crop", "seed", "split_seed", "threads", "attack_samples", "projection_interval"),
            *("weight_decay", "clip_norm"),
        )
        for name, most in (("rotate", 180), ("translate", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"--{name} must be in 0 to {most}, got {getattr(self, name)}")
        if not self.eps or not all(0 < eps < float("inf") for eps in self.eps):
            raise UsageError(f"--eps must hold finite positive radii, got {list(self.eps)}")

    @property
    def run_name(self) -> str:
        """Name of the recipe."""
        return self.name
