"""Certify and attack a run; every result goes into its ``metrics.json``.

Both work on the exported network, whose weights and steps are fixed. The sandwich certified <=
attacked <= clean is checked sample by sample: an example inside a certified radius is an error, not
a statistic.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from onelip.attacks import ATTACKS, PGD, Attack, attack
from onelip.certificates import Certificate, certify
from onelip.data import ImageSet, holdout, load
from onelip.errors import SoundnessError, UsageError
from onelip.export import export
from onelip.lipschitz import lipschitz_bound
from onelip.recipes import Recipe
from onelip.training import RunFolder
from onelip.training.run_folder import replacing

DEFAULT_ATTACKS = ("pgd", "fgm")


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """Matrix products and convolutions in float32 proper, on GPUs that would round to TF32."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


def bound_run(run: RunFolder) -> dict[str, Any]:
    """Proved bounds of the network as trained and as exported, layer by layer."""
    model = run.load_model()
    start = time.perf_counter()
    exported = export(model)
    layers = {name: float(lipschitz_bound(part)) for name, part in exported.named_children()}
    result = {
        "as_trained": float(lipschitz_bound(model)),
        "exported": float(lipschitz_bound(exported)),
        "layers": layers,
        "seconds": round(time.perf_counter() - start, 3),
    }
    run.write({"bound": result})
    return result


def certify_run(run: RunFolder, data: Path | None = None) -> dict[str, Any]:
    """Certify every test image and every held-out training image.

    Radii, predictions and labels go to ``certificates.safetensors``.
    """
    model, recipe = _on_device(run.load_model()), run.recipe
    start = time.perf_counter()
    exported = export(model)
    test = load(recipe.dataset, "test", data or run.data_folder)
    _, held_out = holdout(
        load(recipe.dataset, "train", data or run.data_folder), recipe.validation, recipe.split_seed
    )
    certificate = _certify(exported, test)
    result = {
        "method": f"margin, {certificate.head}",
        "level": certificate.level,
        "bound": float(certificate.bound),
        "body_bound": float(certificate.body_bound),
        "logits": f"{certificate.dtype}, {certificate.device}".removeprefix("torch."),
        "data": test.note,
        "test": _accuracies(certificate, test, recipe),
        "held_out": _accuracies(_certify(exported, held_out), held_out, recipe),
        "seconds": round(time.perf_counter() - start, 3),
    }
    stored = {
        "radius": certificate.radius.cpu(),
        "prediction": certificate.prediction.cpu(),
        "labels": test.labels,
    }
    with replacing(run.path / "certificates.safetensors") as temporary:
        temporary.write_bytes(safetensors.torch.save(stored))
    run.write({"certify": result})
    return result


def attack_run(
    run: RunFolder,
    data: Path | None = None,
    *,
    samples: int | None = None,
    attacks: tuple[str, ...] = DEFAULT_ATTACKS,
) -> dict[str, Any]:
    """Attack test images, spread evenly over the test set, at every eps of the recipe.

    Raises:
        SoundnessError: an attack succeeded inside a certified radius.
    """
    recipe = run.recipe
    count = recipe.attack_samples if samples is None else samples
    if count < 1:
        raise UsageError(f"no images to attack: --samples must be 1 or more, got {count}")
    methods = [method for name in attacks for method in _methods(name, recipe)]
    test = load(recipe.dataset, "test", data or run.data_folder)
    rows = torch.linspace(0, len(test) - 1, min(count, len(test))).long()
    exported, subset = export(_on_device(run.load_model())), test.subset(rows)
    start = time.perf_counter()
    certificate = _certify(exported, subset)
    result = {
        "attacks": [repr(method) for method in methods],
        "samples": len(rows),
        "clean": certificate.accuracy(0.0, subset.labels),
        "eps": _attacked(exported, subset, certificate, recipe, methods),
        "seconds": round(time.perf_counter() - start, 3),
    }
    run.write({"attack": result})
    return result


@_without_tf32()
def _certify(model: nn.Module, data: ImageSet) -> Certificate:
    return certify(model, *_tensors(model, data))


@_without_tf32()
def _attacked(
    model: nn.Module,
    data: ImageSet,
    certificate: Certificate,
    recipe: Recipe,
    methods: list[Attack],
) -> list[dict[str, float]]:
    """Accuracy under attack at growing radii: what breaks in a ball is broken in a larger one."""
    images, labels = _tensors(model, data)
    broken = certificate.prediction != labels
    rows = []
    for eps in sorted(recipe.eps):
        standing = (~broken).nonzero().squeeze(1)
        found = attack(model, images[standing], labels[standing], eps, methods)
        broken[standing] = found.success
        certified = certificate.robust(eps, labels)
        if bool((certified & broken).any()):
            first = int((certified & broken).nonzero()[0])
            raise SoundnessError(
                f"sample {first} is certified to {float(certificate.radius[first]):.6f} and was "
                f"broken at eps={eps}: please report this run"
            )
        rows.append(
            {
                "eps": eps,
                "certified": float(certified.double().mean()),
                "attacked": float((~broken).double().mean()),
            }
        )
    return rows


def _methods(name: str, recipe: Recipe) -> list[Attack]:
    if name not in ATTACKS:
        raise UsageError(f"no attack {name!r}; known: {', '.join(ATTACKS)}")
    if name != "pgd":
        return [ATTACKS[name]()]
    steps, restarts = recipe.attack_steps, recipe.attack_restarts
    return [PGD(steps, restarts, "margin"), PGD(steps, restarts, "cross-entropy")]


def _accuracies(certificate: Certificate, data: ImageSet, recipe: Recipe) -> dict[str, Any]:
    labels = data.labels
    return {
        "samples": len(data),
        "clean": float((certificate.prediction.cpu() == labels).double().mean()),
        "certified": {repr(eps): certificate.accuracy(eps, labels) for eps in recipe.eps},
    }


def _tensors(model: nn.Module, data: ImageSet) -> tuple[Tensor, Tensor]:
    on_device = data.to(next(model.parameters()).device)
    return on_device.images.float().div(255), on_device.labels


def _on_device(model: nn.Module) -> nn.Module:
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
