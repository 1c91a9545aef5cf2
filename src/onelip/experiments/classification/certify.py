"""Certify a run; the result goes into its ``metrics.json``.

The exported network is certified, whose weights and steps are fixed.
"""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.atomic_files import atomic_write
from onelip.bounds import METHODS, Product
from onelip.certificates import (
    Certificate,
    CurvatureProof,
    HeadRadii,
    Proved,
    RadiusProof,
    certify,
    radius_proof,
)
from onelip.data import LabelledSet, as_floats
from onelip.errors import UsageError
from onelip.experiments.classification.certificate_averages import averages, tightness
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.load import averaged_over
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.record_schema import Accuracy
from onelip.experiments.threads import use_threads
from onelip.reading import read

_METHODS = {"product": ("margin",), "curvature": ("curvature",)}


@dataclass(frozen=True)
class Certified:
    """Exported network, test set, and the network's certificate on it."""

    model: nn.Module
    test: LabelledSet
    certificate: Certificate


def certify_run(
    run: ClassificationFolder,
    data: Path | None = None,
    *,
    method: str | None = None,
    level: Literal["real", "float"] = "real",
    precision: int | None = None,
    average: str | None = None,
) -> Certified:
    """Certify every test image and every held-out training image.

    Radii, predictions and labels go to ``certificates.safetensors``. Where LipLT proves the
    constants, those of the product of norms, and the radii they give, are stored beside. An average
    is another network: its accuracies are stored beside the run's, and its radii are not.

    Args:
        run: a trained run.
        data: place of the data set, if it is not the one that the run was trained from.
        method: a name in ``onelip.certificates.METHODS``; that of the recipe by default.
        level: of the certificate.
        precision: 32 or 64, the bits in which the exported network runs; by default 32, and 64
            for tables, whose numbers are not rounded then.
        average: transforms that the mean of the network is taken over; see ``onelip.load``.
    """
    if precision not in (None, 32, 64):
        raise UsageError(f"--precision must be 32 or 64, got {precision}")
    use_threads(run.recipe.threads)
    model, recipe, found = _on_device(run.load_model()), run.recipe, run.data(data)
    test, held_out = found.test, found.validation
    if test.box is None and precision == 32:
        raise UsageError("--precision 32 would round the numbers of a table: leave it at 64")
    precision = precision or (64 if test.box is None else 32)
    start = time.perf_counter()
    exported = averaged_over(average, export(model), found.info)
    exported = exported.double() if precision == 64 else exported
    name = method or recipe.certificate
    proved = radius_proof(name, exported, found.info.shape)
    certificate, of_held_out = _certify(exported, proved, level, test, held_out)
    result = {
        "method": ", ".join((*_words(certificate.method), certificate.head)),
        "certificate": name,
        "level": certificate.level,
        "bound": float(certificate.bound),
        "body_bound": float(certificate.body_bound),
        "logits": f"{certificate.dtype}, {certificate.device}".removeprefix("torch."),
        "data": test.note,
        "test": _accuracies(certificate, test, recipe),
        "held_out": _accuracies(of_held_out, held_out, recipe),
        "seconds": round(time.perf_counter() - start, 3),
    }
    if average is not None:
        run.write({"averaged": {**run.read().get("averaged", {}), average: result}})
        return Certified(exported, test, certificate)
    stored = {
        "radius": certificate.radius.cpu(),
        "prediction": certificate.prediction.cpu(),
        "labels": test.labels,
    }
    records: dict[str, Any] = {"certify": result}
    if name == "liplt" and proved.proof is not None:
        product = Product().logit_bounds(read(exported, found.info.shape))
        by_product = dataclasses.replace(proved, pairwise=lambda _: product.pairwise)
        (looser,) = _certify(exported, by_product, level, test)
        stored["radius_of_product"] = looser.radius.cpu()
        records["constants"] = {"naive": averages(product), "liplt": averages(proved.proof)}
        records["constants"]["naive"] |= _accuracies(looser, test, recipe)
    if certificate.head_radii is not None and isinstance(proved, CurvatureProof):
        records["tightness"] = tightness(certificate.head_radii, proved)
    with atomic_write(run.path / "certificates.safetensors") as temporary:
        temporary.write_bytes(safetensors.torch.save(stored))
    run.write(records)
    return Certified(exported, test, certificate)


def certify_held_out(run: ClassificationFolder, data: Path | None = None) -> Accuracy:
    """Certify the held-out training images alone: choices between runs must not see the test set.

    Args:
        run: a trained run.
        data: place of the data set, if it is not the one that the run was trained from.

    Returns:
        Their accuracies, which go into the record as ``held_out``.
    """
    use_threads(run.recipe.threads)
    recipe, found = run.recipe, run.data(data)
    exported, held_out = export(_on_device(run.load_model())), found.validation
    exported = exported.double() if held_out.box is None else exported
    proved = radius_proof(recipe.certificate, exported, found.info.shape)
    (certificate,) = _certify(exported, proved, "real", held_out)
    shares = cast(Accuracy, _accuracies(certificate, held_out, recipe))
    run.write({"held_out": shares})
    return shares


def _certify(
    model: nn.Module, proved: RadiusProof, level: Literal["real", "float"], *sets: LabelledSet
) -> list[Certificate]:
    """Certify each set, on one proof."""
    inputs, labels = zip(*(tensors_for(model, data) for data in sets), strict=True)
    whole = certify(
        model,
        torch.cat(inputs),
        torch.cat(labels),
        method=Proved(proved),
        level=level,
        box=sets[0].box,
    )
    rows = torch.arange(len(whole.radius)).split([len(data) for data in sets])
    return [part(whole, chosen) for chosen in rows]


def _words(method: str) -> tuple[str, ...]:
    """Name of a certificate's method in records."""
    titled = ("margin", METHODS[method].title if method in METHODS else method)
    return _METHODS.get(method, titled)


def part(certificate: Certificate, rows: Tensor) -> Certificate:
    """Return the certificate of some of its samples."""
    prediction, radius = certificate.prediction[rows], certificate.radius[rows]
    found = certificate.head_radii
    if found is not None:
        found = HeadRadii(**{name: value[rows] for name, value in vars(found).items()})
    return dataclasses.replace(certificate, prediction=prediction, radius=radius, head_radii=found)


def _accuracies(certificate: Certificate, data: LabelledSet, recipe: Recipe) -> dict[str, Any]:
    return {
        "samples": len(data),
        "clean": share(certificate.prediction.cpu() == data.labels),
        "certified": {repr(eps): certificate.accuracy(eps, data.labels) for eps in recipe.eps},
    }


def share(samples: Tensor) -> float:
    """Return the share of the samples with a property."""
    return float(samples.double().mean())


def tensors_for(model: nn.Module, data: LabelledSet) -> tuple[Tensor, Tensor]:
    """Return inputs and labels on the device and in the dtype of a model, pixels in [0, 1]."""
    weight = next(model.parameters())
    on_device = data.to(weight.device)
    return as_floats(on_device.inputs, weight.dtype), on_device.labels


def _on_device(model: nn.Module) -> nn.Module:
    return model.to("cuda" if torch.cuda.is_available() else "cpu")
