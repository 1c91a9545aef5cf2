"""Attack a run; the result goes into its ``metrics.json``.

The exported network is attacked, whose weights and steps are fixed. The sandwich certified <=
attacked <= clean is checked sample by sample: an example inside a certified radius is an error, not
a statistic.
"""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onelip.attacks import ATTACKS, DEFAULT_ATTACKS, Attack, UnitBox, attack_radii
from onelip.certificates import full_precision
from onelip.errors import SoundnessError, UsageError
from onelip.experiments.classification.certify import (
    Certified,
    certify_run,
    part,
    share,
    tensors_for,
)
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.recipe import Recipe


def attack_run(
    run: ClassificationFolder,
    data: Path | None = None,
    *,
    samples: int | None = None,
    attacks: tuple[str, ...] = DEFAULT_ATTACKS,
    certified: Certified | None = None,
) -> dict[str, Any]:
    """Attack test images, spread evenly over the test set, at every eps of the recipe.

    Each set of attacks and number of images has a record of its own.

    Args:
        run: a trained run.
        data: place of the data set, if it is not the one that the run was trained from.
        samples: how many images; that of the recipe by default.
        attacks: names in ``onelip.attacks.ATTACKS``.
        certified: what ``certify_run`` returned; if this is left out it is called, with the level
            and the precision of the certificate that is stored.

    Raises:
        SoundnessError: an attack succeeded inside a certified radius.
    """
    recipe = run.recipe
    count = recipe.attack_samples if samples is None else samples
    if count < 1:
        raise UsageError(f"nothing to attack: --samples must be 1 or more, got {count}")
    methods = [method for name in attacks for method in _methods(name, recipe)]
    certified = certified or certify_run(run, data, **_as_stored(run))
    rows = attacked_rows(len(certified.test), count)
    start = time.perf_counter()
    result = {
        "attacks": [repr(method) for method in methods],
        "samples": len(rows),
        **_attacked(certified, rows, recipe, methods),
        "seconds": round(time.perf_counter() - start, 3),
    }
    key = (
        f"{', '.join(attacks)} on {len(rows)} {'rows' if certified.test.box is None else 'images'}"
    )
    run.write({"attack": {**run.read().get("attack", {}), key: result}})
    return result


def _as_stored(run: ClassificationFolder) -> dict[str, Any]:
    """Return method, level and precision of the run's stored certificate."""
    stored = run.read().get("certify", {})
    precision = 64 if str(stored.get("logits", "")).startswith("float64") else 32
    return {
        "method": stored.get("certificate"),
        "level": stored.get("level", "real"),
        "precision": precision if stored else None,
    }


def attacked_rows(total: int, count: int) -> Tensor:
    """Return the indices of the attacked test images: ``count`` of them, spread evenly."""
    return torch.linspace(0, total - 1, min(count, total)).long()


def _attacked(
    certified: Certified, rows: Tensor, recipe: Recipe, methods: list[Attack]
) -> dict[str, Any]:
    """Return clean, certified and attacked accuracy on some test images, at each radius."""
    model, (inputs, labels) = (
        certified.model,
        tensors_for(certified.model, certified.test.subset(rows)),
    )
    certificate = part(certified.certificate, rows)
    clean = certificate.prediction == labels
    radii = sorted(recipe.eps)
    attacked = radii
    if certified.test.box is None:
        model = UnitBox.around(model, inputs, max(radii))
        inputs, attacked = model.inputs(inputs), [model.radius(eps) for eps in radii]
    with full_precision(inputs.device):
        broken = attack_radii(model, inputs, labels, attacked, methods)
    at_radii = []
    for eps, lost in zip(radii, broken, strict=True):
        robust = certificate.robust(eps, labels)
        _check_sandwich(robust, ~lost, clean, certificate.radius, eps)
        at_radii.append({"eps": eps, "certified": share(robust), "attacked": share(~lost)})
    return {"clean": share(clean), "eps": at_radii}


def _check_sandwich(
    certified: Tensor, standing: Tensor, clean: Tensor, radius: Tensor, eps: float
) -> None:
    """Check certified <= attacked <= clean, sample by sample."""
    for sample in (certified & ~standing).nonzero()[:1].flatten().tolist():
        raise SoundnessError(
            f"sample {sample} is certified to {float(radius[sample]):.6f} and was broken at "
            f"eps={eps}: please report this run"
        )
    for sample in (standing & ~clean).nonzero()[:1].flatten().tolist():
        raise SoundnessError(
            f"sample {sample} is wrong without an attack and right under one: its logits are tied "
            "up to rounding; please report this run"
        )


def _methods(name: str, recipe: Recipe) -> list[Attack]:
    if name not in ATTACKS:
        raise UsageError(f"no attack {name!r}; known: {', '.join(ATTACKS)}")
    return list(ATTACKS[name](recipe.attack_steps, recipe.attack_restarts))
