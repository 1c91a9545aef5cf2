"""Attacks of foolbox as functions of model, images, labels and eps that return candidates.

Foolbox's own verdicts are never used: `onelip.attacks.judge` has the only say.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from onelip.attacks._judge import check_inputs, judge
from onelip.attacks.objectives import Loss, objective
from onelip.attacks.session import import_foolbox, wrapped
from onelip.errors import UsageError


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent from a random start.

    Args:
        steps: Number of gradient steps.
        restarts: Number of random starts; later ones only for images not yet broken.
        loss: Objective: the largest other logit minus the label's, the cross-entropy, or `dlr`.
        rel_stepsize: Step size, as a share of eps.
        seed: Seed of the random starts.
    """

    name: ClassVar[str] = "pgd"
    minimises: ClassVar[bool] = False
    steps: int = 50
    restarts: int = 1
    loss: Loss = "margin"
    rel_stepsize: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        objective(self.loss)
        if self.steps < 1 or self.restarts < 1:
            raise UsageError("PGD needs at least one step and one restart")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Return candidates within ``eps``, up to rounding."""
        check_inputs(images, labels, eps)
        candidates, rows = images.clone(), torch.arange(len(images), device=images.device)
        with wrapped(model, images.device, self.seed) as target:
            ascent = _ascent(self.loss, self.steps, self.rel_stepsize, random_start=True)
            for _ in range(self.restarts):
                if not len(rows):
                    break
                clean, targets = images[rows], labels[rows]
                candidates[rows] = ascent.run(target, clean, targets, epsilon=eps)
                found = judge(model, clean, targets, candidates[rows], eps)
                rows = rows[~found.success]
        return candidates


@dataclass(frozen=True)
class FGM:
    """One gradient step of length eps from the image itself.

    Args:
        loss: Objective to maximise.
    """

    name: ClassVar[str] = "fgm"
    minimises: ClassVar[bool] = False
    loss: Loss = "cross-entropy"

    def __post_init__(self) -> None:
        objective(self.loss)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Return candidates within ``eps``, up to rounding."""
        check_inputs(images, labels, eps)
        if not len(images):
            return images.clone()
        with wrapped(model, images.device, seed=0) as target:
            ascent = _ascent(self.loss, steps=1, rel_stepsize=1.0, random_start=False)
            candidates: Tensor = ascent.run(target, images, labels, epsilon=eps)
        return candidates


@dataclass(frozen=True)
class Boundary:
    """Random walk along the decision boundary, from noise towards the image; no gradients.

    Args:
        steps: Number of steps of the walk.
        seed: Seed of the walk.
    """

    name: ClassVar[str] = "boundary"
    minimises: ClassVar[bool] = True
    steps: int = 5000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError("Boundary needs at least one step: choose 1 or more")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Return candidates close to the image, independent of ``eps``."""
        foolbox = import_foolbox()
        start = foolbox.attacks.LinearSearchBlendedUniformNoiseAttack(directions=100, steps=50)
        refine = foolbox.attacks.BoundaryAttack(steps=self.steps)
        check_inputs(images, labels, eps)
        return _minimise(model, images, labels, start=start, refine=refine, seed=self.seed)


@dataclass(frozen=True)
class Pointwise:
    """Salt-and-pepper noise, reset pixel by pixel as far as the model stays wrong; no gradients.

    Args:
        seed: Seed of the noise and of the order of the pixels.
    """

    name: ClassVar[str] = "pointwise"
    minimises: ClassVar[bool] = True
    seed: int = 0

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Return candidates close to the image, independent of ``eps``."""
        foolbox = import_foolbox()
        start, refine = (
            foolbox.attacks.SaltAndPepperNoiseAttack(),
            foolbox.attacks.PointwiseAttack(),
        )
        check_inputs(images, labels, eps)
        return _minimise(model, images, labels, start=start, refine=refine, seed=self.seed)


@dataclass(frozen=True)
class FMN:
    """Fast minimum-norm attack (Pintor et al., 2021): gradient steps in a ball of adaptive radius.

    Args:
        steps: Number of gradient steps.
    """

    name: ClassVar[str] = "fmn"
    minimises: ClassVar[bool] = True
    steps: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError("FMN needs at least one step: choose 1 or more")

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> Tensor:
        """Return candidates close to the image, independent of ``eps``."""
        foolbox = import_foolbox()
        check_inputs(images, labels, eps)
        if not len(images):
            return images.clone()
        with wrapped(model, images.device, seed=0) as target:
            candidates: Tensor = _projected_fmn(foolbox, self.steps).run(target, images, labels)
            # some stop where the box of pixels cuts a ball; without balls steps go on to a mistake
            rows = (_predictions(model, candidates) == labels).nonzero().squeeze(1)
            if len(rows):
                wander = foolbox.attacks.L2FMNAttack(steps=self.steps)
                candidates[rows] = wander.run(target, images[rows], labels[rows])
        return candidates


def _projected_fmn(foolbox: Any, steps: int) -> Any:
    """Foolbox's attack with a projection: that of version 3.3.4 divides a norm by itself."""
    import eagerpy

    class Projected(foolbox.attacks.L2FMNAttack):  # type: ignore[misc]
        def project(self, x: Any, x0: Any, epsilon: Any) -> Any:
            """Nearest points of balls around ``x0``, a hair larger: steps pass the boundary."""
            change = x - x0
            norms = eagerpy.maximum(change.flatten(start=1).norms.l2(axis=-1), 1e-12)
            factor = eagerpy.minimum(1, 1.001 * epsilon / norms)
            return x0 + change * factor.reshape((-1, *(1,) * (x.ndim - 1)))

    return Projected(steps=steps)


def _minimise(
    model: nn.Module, images: Tensor, labels: Tensor, *, start: Any, refine: Any, seed: int
) -> Tensor:
    """Refine the starts that the model gets wrong; the other candidates are clean images."""
    candidates = images.clone()
    with wrapped(model, images.device, seed) as target:
        rows = (_predictions(model, images) == labels).nonzero().squeeze(1)
        starts = start.run(target, images[rows], labels[rows]) if len(rows) else images[rows]
        # Predictions can depend on the batch in the last bit: ask again until nothing changes.
        while len(rows):
            wrong = _predictions(model, starts) != labels[rows]
            if wrong.all():
                clean, targets = images[rows], labels[rows]
                candidates[rows], _, _ = refine(
                    target, clean, targets, epsilons=None, starting_points=starts
                )
                break
            rows, starts = rows[wrong], starts[wrong]
    return candidates


def _predictions(model: nn.Module, images: Tensor) -> Tensor:
    """Predicted classes."""
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits.argmax(1)


def _ascent(loss: Loss, steps: int, rel_stepsize: float, *, random_start: bool) -> Any:
    """Return foolbox's ascent, without its changes to the gradients of the parameters."""
    from eagerpy.astensor import astensor

    class Ascent(import_foolbox().attacks.L2ProjectedGradientDescentAttack):  # type: ignore[misc]
        def get_loss_fn(self, model: Any, labels: Any) -> Callable[[Any], Any]:
            return lambda inputs: objective(loss)(model(inputs).raw, labels.raw, None).sum()

        def value_and_grad(self, loss_fn: Any, x: Any) -> tuple[Any, Any]:
            with torch.enable_grad():
                inputs = x.raw.detach().clone().requires_grad_()
                value = loss_fn(astensor(inputs))
                (gradient,) = torch.autograd.grad(value, inputs)
            return value.detach(), astensor(gradient.nan_to_num(0.0, 0.0, 0.0))

    return Ascent(steps=steps, rel_stepsize=rel_stepsize, random_start=random_start)
