"""Certify and attack a run; every result goes into its ``metrics.json``.

Both work on the exported network, whose weights and steps are fixed. The sandwich certified <=
attacked <= clean is checked sample by sample: an example inside a certified radius is an error, not
a statistic.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.atomic_files import replacing
from onelip.attacks import ATTACKS, DEFAULT_ATTACKS, Attack, attack_radii
from onelip.bounds import METHODS, Product
from onelip.certificates import (
    Certificate,
    CurvatureProof,
    HeadRadii,
    Proved,
    RadiusProof,
    certify,
    full_precision,
    radius_proof,
)
from onelip.data import ImageSet, holdout, load
from onelip.errors import SoundnessError, UsageError
from onelip.evaluation.constants import averages, tightness
from onelip.reading import read
from onelip.recipes import Recipe
from onelip.training import RunFolder
from onelip.training.run_folder import use_threads

_METHODS = {"product": ("margin",), "curvature": ("curvature",)}


@dataclass(frozen=True)
class Certified:
    """An exported network, the test set, and the certificate of the one on the other."""

    model: nn.Module
    test: ImageSet
    certificate: Certificate


def certify_run(
    run: RunFolder,
    data: Path | None = None,
    *,
    level: Literal["real", "float"] = "real",
    precision: int = 32,
) -> Certified:
    """Certify every test image and every held-out training image.

    Radii, predictions and labels go to ``certificates.safetensors``. Where LipLT proves the
    constants, those of the product of norms, and the radii they give, are stored beside.

    Args:
        run: a trained run.
        data: folder of the data set, if it is not the one that the run was trained from.
        level: of the certificate.
        precision: 32 or 64, the bits in which the exported network runs.
    """
    if precision not in (32, 64):
        raise UsageError(f"--precision must be 32 or 64, got {precision}")
    use_threads(run.recipe)
    model, recipe, folder = _on_device(run.load_model()), run.recipe, data or run.data_folder
    test = load(recipe.dataset, "test", folder)
    whole_train = load(recipe.dataset, "train", folder)
    _, held_out = holdout(whole_train, recipe.validation, recipe.split_seed)
    start = time.perf_counter()
    exported = export(model)
    exported = exported.double() if precision == 64 else exported
    proved = radius_proof(recipe.certificate, exported, tuple(test.images.shape[1:]))
    certificate, of_held_out = _certify(exported, proved, level, test, held_out)
    result = {
        "method": ", ".join((*_words(certificate.method), certificate.head)),
        "level": certificate.level,
        "bound": float(certificate.bound),
        "body_bound": float(certificate.body_bound),
        "logits": f"{certificate.dtype}, {certificate.device}".removeprefix("torch."),
        "data": test.note,
        "test": _accuracies(certificate, test, recipe),
        "held_out": _accuracies(of_held_out, held_out, recipe),
        "seconds": round(time.perf_counter() - start, 3),
    }
    stored = {
        "radius": certificate.radius.cpu(),
        "prediction": certificate.prediction.cpu(),
        "labels": test.labels,
    }
    records: dict[str, Any] = {"certify": result}
    if recipe.certificate == "liplt" and proved.proof is not None:
        product = Product().logit_bounds(read(exported, tuple(test.images.shape[1:])))
        by_product = dataclasses.replace(proved, pairwise=lambda _: product.pairwise)
        (looser,) = _certify(exported, by_product, level, test)
        stored["radius_of_product"] = looser.radius.cpu()
        records["constants"] = {"naive": averages(product), "liplt": averages(proved.proof)}
        records["constants"]["naive"] |= _accuracies(looser, test, recipe)
    if certificate.head_radii is not None and isinstance(proved, CurvatureProof):
        records["tightness"] = tightness(certificate.head_radii, proved)
    with replacing(run.path / "certificates.safetensors") as temporary:
        temporary.write_bytes(safetensors.torch.save(stored))
    run.write(records)
    return Certified(exported, test, certificate)


def attack_run(
    run: RunFolder,
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
        data: folder of the data set, if it is not the one that the run was trained from.
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
        raise UsageError(f"no images to attack: --samples must be 1 or more, got {count}")
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
    key = f"{', '.join(attacks)} on {len(rows)} images"
    run.write({"attack": {**run.read().get("attack", {}), key: result}})
    return result


def _as_stored(run: RunFolder) -> dict[str, Any]:
    """Level and precision of the certificate that a run has."""
    stored = run.read().get("certify", {})
    precision = 64 if str(stored.get("logits", "")).startswith("float64") else 32
    return {"level": stored.get("level", "real"), "precision": precision}


def attacked_rows(total: int, count: int) -> Tensor:
    """Which test images are attacked: ``count`` of them, spread evenly."""
    return torch.linspace(0, total - 1, min(count, total)).long()


def _attacked(
    certified: Certified, rows: Tensor, recipe: Recipe, methods: list[Attack]
) -> dict[str, Any]:
    """Clean, certified and attacked accuracy on some test images, at each radius."""
    images, labels = _tensors(certified.model, certified.test.subset(rows))
    certificate = _part(certified.certificate, rows)
    clean = certificate.prediction == labels
    radii = sorted(recipe.eps)
    with full_precision(images.device):
        broken = attack_radii(certified.model, images, labels, radii, methods)
    at_radii = []
    for eps, lost in zip(radii, broken, strict=True):
        robust = certificate.robust(eps, labels)
        _check_sandwich(robust, ~lost, clean, certificate.radius, eps)
        at_radii.append({"eps": eps, "certified": _share(robust), "attacked": _share(~lost)})
    return {"clean": _share(clean), "eps": at_radii}


def _check_sandwich(
    certified: Tensor, standing: Tensor, clean: Tensor, radius: Tensor, eps: float
) -> None:
    """Certified <= attacked <= clean, sample by sample."""
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


def _certify(
    model: nn.Module, proved: RadiusProof, level: Literal["real", "float"], *sets: ImageSet
) -> list[Certificate]:
    """One certificate per set of images, on one proof."""
    images, labels = zip(*(_tensors(model, data) for data in sets), strict=True)
    whole = certify(model, torch.cat(images), torch.cat(labels), method=Proved(proved), level=level)
    rows = torch.arange(len(whole.radius)).split([len(data) for data in sets])
    return [_part(whole, part) for part in rows]


def _words(method: str) -> tuple[str, ...]:
    """How a record calls the method of a certificate."""
    titled = ("margin", METHODS[method].title if method in METHODS else method)
    return _METHODS.get(method, titled)


def _part(certificate: Certificate, rows: Tensor) -> Certificate:
    """The certificate of some of its samples."""
    prediction, radius = certificate.prediction[rows], certificate.radius[rows]
    found = certificate.head_radii
    if found is not None:
        found = HeadRadii(**{name: value[rows] for name, value in vars(found).items()})
    return dataclasses.replace(certificate, prediction=prediction, radius=radius, head_radii=found)


def _accuracies(certificate: Certificate, data: ImageSet, recipe: Recipe) -> dict[str, Any]:
    return {
        "samples": len(data),
        "clean": _share(certificate.prediction.cpu() == data.labels),
        "certified": {repr(eps): certificate.accuracy(eps, data.labels) for eps in recipe.eps},
    }


def _share(samples: Tensor) -> float:
    return float(samples.double().mean())


def _tensors(model: nn.Module, data: ImageSet) -> tuple[Tensor, Tensor]:
    weight = next(model.parameters())
    on_device = data.to(weight.device)
    return on_device.images.to(weight.dtype).div(255), on_device.labels


def _on_device(model: nn.Module) -> nn.Module:
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
