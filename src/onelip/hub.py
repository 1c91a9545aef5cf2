"""Trained runs as repositories of the Hugging Face hub, proved again when they are loaded.

A repository is a run folder without its checkpoint: ``model.safetensors``, the record
``metrics.json``, and for the hub ``config.json`` and the model card ``README.md``. Nothing in it is
code or a pickle: the network is built by a name in ``onelip.models.MODELS``, with arguments that
are checked.
"""

import copy
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from onelip._export import export
from onelip.certificates import certify
from onelip.errors import UsageError, missing_extra
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.record_schema import TrainingRecord, parsed
from onelip.image_sets import DataInfo
from onelip.models import MODELS

FILES = ("README.md", "config.json", "metrics.json", "model.safetensors")
"""Files of a repository; no other is downloaded."""

_SLACK = 1 + 1e-6  # of a bound that is proved again, by other sums
_DATA = {
    "digits": ("scikit-learn's digits", None, "CC BY 4.0 (UCI)"),
    "mnist": ("MNIST", "ylecun/mnist", "CC BY-SA 3.0"),
    "fashion-mnist": ("Fashion-MNIST", "zalando-datasets/fashion_mnist", "MIT"),
    "cifar10": ("CIFAR-10", "uoft-cs/cifar10", "its authors state none"),
    "cifar100": ("CIFAR-100", "uoft-cs/cifar100", "its authors state none"),
    "tiny-imagenet": ("Tiny-ImageNet", "zh-plus/tiny-imagenet", "ImageNet's terms: research only"),
}
"""Title, repository on the hub and licence of each data set."""


@dataclass(frozen=True, eq=False)
class Published:
    """A network from a repository, and what is known of it.

    Attributes:
        network: exported, in eval mode, in the precision that it was certified in.
        bound: its Lipschitz bound, as it was proved now.
        record: the record of its run.
        folder: where its files are.
    """

    network: nn.Module
    bound: float
    record: TrainingRecord
    folder: Path


def save(run: str | Path, folder: str | Path, *, license: str | None = None) -> Published:
    """Write a certified run as a new folder that the hub takes; ``load`` reads it first.

    Local paths in the record are left out.

    Args:
        run: folder of a run that ``onelip certify`` has certified.
        folder: the new one.
        license: of the weights, by its name on the hub, such as ``"mit"``.

    Raises:
        UsageError: the run is not certified, has a network of the user's own code, or its bound
            cannot be proved again; the new folder has something in it.
    """
    source, target = ClassificationFolder.open(run), Path(folder)
    _refuse_code(source.recipe)
    source.load_model()
    record = _without_paths(source.read())
    if "certify" not in record:
        raise UsageError(f"{source.path} is not certified: onelip certify {source.path}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} exists and is not overwritten: choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        shutil.copyfile(source.weights, temporary / "model.safetensors")
        config = _config(source.recipe, _digest(temporary))
        for name, content in (("metrics.json", record), ("config.json", config)):
            text = json.dumps(content, indent=1) + "\n"
            (temporary / name).write_text(text, encoding="utf-8")
        card = model_card(record, source.info, config["weights_sha256"], license=license)
        (temporary / "README.md").write_text(card, encoding="utf-8")
        found = load(temporary)
        temporary.chmod(0o755)  # a temporary folder is private
        temporary.replace(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Published(found.network, found.bound, found.record, target)


def push(
    run: str | Path,
    repository: str,
    *,
    license: str | None = None,
    private: bool | None = None,
    token: str | None = None,
) -> str:
    """Upload a certified run to the hub, and return the address of the commit.

    Args:
        run: see ``save``.
        repository: ``"user/name"``; it is made if it does not exist.
        license: see ``save``.
        private: whether a new repository is.
        token: of the hub; that of ``hf auth login`` by default.

    Raises:
        UsageError: see ``save``; or the hub refuses.
    """
    hub = _hub()
    with tempfile.TemporaryDirectory() as above:
        folder = Path(above) / "run"
        save(run, folder, license=license)
        api = hub.HfApi(token=token)
        try:
            made = api.create_repo(repository, private=private, exist_ok=True)
            return str(
                api.upload_folder(
                    repo_id=made.repo_id,
                    folder_path=folder,
                    commit_message="Network with a proved Lipschitz constant",
                )
            )
        except (OSError, hub.errors.HFValidationError) as error:  # errors of HTTP are OSErrors
            raise UsageError(f"{repository} cannot be written: {_line(error)}") from error


def load(source: str | Path, *, revision: str | None = None, token: str | None = None) -> Published:
    """Load a repository, and prove again what its card claims.

    The weights have the digest of the card, the numbers on the card are those of the record, and
    the Lipschitz bound is proved anew and not above the one on the card. Accuracies are recomputed
    by ``onelip certify`` on a copy of the folder, which is a run folder.

    Cost: of the proof that the run was certified by; minutes for LipLT on convolutions.

    Args:
        source: a folder, or ``"user/name"`` on the hub.
        revision: branch, tag or commit on the hub.
        token: of the hub.

    Raises:
        UsageError: it cannot be read, or does not say what is so; the message names the file.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _downloaded(str(source), revision, token)
    run = ClassificationFolder.open(folder)
    record, recipe = run.read(), run.recipe
    if "certify" not in record:
        raise UsageError(f"{run.record} has no entry 'certify': it is not certified")
    if "code" in record:
        raise UsageError(f"{run.record} names code of its author's own: it is not loaded")
    _refuse_code(recipe)
    _check_card(folder, record, recipe)
    stated = record["certify"]
    network = export(run.load_model())
    if stated.get("logits", "").startswith("float64"):
        network = network.double()
    dtype = next(network.parameters()).dtype
    somewhere = torch.zeros(1, *run.info.shape, dtype=dtype)
    method, level = stated.get("certificate", recipe.certificate), stated["level"]
    proved = certify(network, somewhere, method=method, level=level, box=run.info.box)
    for name in ("bound", "body_bound"):
        now, then = float(getattr(proved, name)), float(cast(Mapping[str, float], stated)[name])
        if not now <= then * _SLACK:
            raise UsageError(
                f"{folder} claims a {name.replace('_', ' ')} of {then:.9g}, and {now:.9g} is "
                "proved: its certified accuracies do not hold for these weights"
            )
    return Published(network, float(proved.bound), record, folder)


def model_card(
    record: TrainingRecord, info: DataInfo, digest: str, *, license: str | None = None
) -> str:
    """Write the model card of a certified run: its numbers for the hub, and a page to read.

    Args:
        record: of the run.
        info: of its data.
        digest: SHA-256 of the file of the weights.
        license: of the weights.
    """
    hub, recipe = _hub(), Recipe.from_record(record["recipe"])
    own = (record.get("data", {}).get("name", "data of its author"), None, "not known")
    title, repository, licence = _DATA.get(recipe.dataset, own)
    task = "tabular-classification" if info.columns else "image-classification"
    data = hub.ModelCardData(
        model_name=recipe.name,
        library_name="onelip",
        license=license,
        pipeline_tag=task,
        datasets=[repository] if repository else None,
        tags=["certified-robustness", "lipschitz"],
        eval_results=[
            hub.EvalResult(
                task_type=task,
                dataset_type=repository or recipe.dataset,
                dataset_name=title,
                dataset_split="test",
                metric_type=kind,
                metric_name=name,
                metric_value=value,
            )
            for name, kind, value in _metrics(record)
        ],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_page(record, info, title, licence, digest)}"


def _metrics(record: TrainingRecord) -> list[tuple[str, str, float]]:
    """Name, kind and value of each number on the card; accuracies in per cent."""
    certify, rows = record["certify"], []
    rows.append(("clean accuracy", "accuracy", _percent(certify["test"]["clean"])))
    for eps, share in certify["test"]["certified"].items():
        rows.append((f"certified accuracy, l2 radius {eps}", "accuracy", _percent(share)))
    for attacks, found in record.get("attack", {}).items():
        for at in found["eps"]:
            name = f"accuracy under attack, l2 radius {at['eps']} ({attacks})"
            rows.append((name, "accuracy", _percent(at["attacked"])))
    rows.append(("proved Lipschitz bound", "lipschitz-bound", float(certify["bound"])))
    return rows


def _page(record: TrainingRecord, info: DataInfo, title: str, licence: str, digest: str) -> str:
    """Write what a person reads."""
    recipe = Recipe.from_record(record["recipe"])
    certify, trained = record["certify"], record["train"]
    test = certify["test"]
    shape, box = " x ".join(map(str, info.shape)), ", box=None" if info.box is None else ""
    rows = [f"| 0 | {_percent(test['clean'])} | |"]
    attacked: dict[float, float] = {}
    for found in record.get("attack", {}).values():
        for at in found["eps"] if found["samples"] == test["samples"] else ():
            attacked[at["eps"]] = min(at["attacked"], attacked.get(at["eps"], 1))
    for eps, share in test["certified"].items():
        under = _percent(attacked[float(eps)]) if float(eps) in attacked else ""
        rows.append(f"| {eps} | {_percent(share)} | {under} |")
    level = {
        "real": "for the network in exact arithmetic, the rounding of a forward pass not counted",
        "float": "for what the network computes, rounding included",
    }[certify["level"]]
    notes = [note for note in (record.get("data", {}).get("note"), certify["data"]) if note]
    return f"""# {recipe.name}

{recipe.about}. Its Lipschitz constant is **proved**, and with it, for each input, a radius within
which no change alters the prediction.

| l2 radius, {info.unit} | certified, % of {test["samples"]} test samples | under attack, % |
|---|---|---|
{chr(10).join(rows)}

* proved Lipschitz bound: {certify["bound"]:.9g}; in front of the head: {certify["body_bound"]:.9g}
* method: {certify["method"]}; level `{certify["level"]}`: {level}
* logits: {certify.get("logits", "float32")}
* data: {title}{"".join(f"; {note}" for note in notes)}; licence of the data: {licence}
* training: {trained["seconds"]:.0f} s, {len(trained["epochs"])} epochs, seed {recipe.seed}; \
certification: {certify["seconds"]:.1f} s
* commit {record.get("commit") or "unknown"}; SHA-256 of the weights: `{digest}`

```python
import onelip, onelip.hub

found = onelip.hub.load("USER/NAME")  # builds it by name, runs no code, proves the bound
certificate = onelip.certify(found.network, x{box})  # each ({shape}), {info.unit}
```

`onelip certify` on a copy of this folder computes the table again; `metrics.json` is the record.

## What it is not for
* Changes other than small ones in the l2 norm: rotations, occlusion, blur or another camera are not
  covered, and a certified prediction may still be wrong.
* Inputs of another kind than {title}: there is no notion of an unknown class.
* Decisions that matter to people. It is a network for research on robustness.
"""


def _refuse_code(recipe: Recipe) -> None:
    """Refuse networks that are built by code of somebody's own.

    Raises:
        UsageError: the model is none of ``onelip.models.MODELS``.
    """
    if recipe.model not in MODELS:
        raise UsageError(
            f"no model {recipe.model!r}; known: {', '.join(MODELS)}; a repository holds no code: "
            "onelip.save writes any network as a .pt2 or .onnx file"
        )


def _without_paths(record: TrainingRecord) -> TrainingRecord:
    """Copy a record without the places of files of this machine."""
    copied = copy.deepcopy(record)
    copied.pop("code", None)
    cast(dict[str, Any], copied.get("data", {})).pop("folder", None)
    copied["recipe"]["loss"] = Path(copied["recipe"]["loss"]).name  # one of the user's own: a path
    return copied


def _config(recipe: Recipe, digest: str) -> dict[str, Any]:
    """What the hub looks for: how the network is built, and which weights these are."""
    stored = recipe.as_record()
    built = {key: stored[key] for key in ("model", "dataset", "network")}
    return {"library_name": "onelip", **built, "weights_sha256": digest}


def _check_card(folder: Path, record: TrainingRecord, recipe: Recipe) -> None:
    """Compare weights, settings, record and card with one another.

    Raises:
        UsageError: they do not belong together.
    """
    hub = _hub()
    for name in FILES:
        if not (folder / name).is_file():
            raise UsageError(f"{folder} has no {name}: onelip.hub.save writes it")
    digest, config_file = _digest(folder), folder / "config.json"
    try:
        config = parsed(config_file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{config_file} cannot be read ({_line(error)})") from None
    if config.get("weights_sha256") != digest:
        raise UsageError(f"{folder}: model.safetensors is not the file that config.json names")
    if config != json.loads(json.dumps(_config(recipe, digest))):
        raise UsageError(f"{config_file} and metrics.json describe different networks")
    try:
        card = hub.ModelCard.load(folder / "README.md")
        results = card.data.eval_results or []
        found = [
            (result.metric_name, result.metric_type, result.metric_value) for result in results
        ]
    except Exception as error:  # a damaged card can raise anything
        raise UsageError(f"{folder / 'README.md'} cannot be read ({_line(error)})") from None
    if sorted(map(str, found)) != sorted(map(str, _metrics(record))) or digest not in card.text:
        raise UsageError(f"{folder}: the card does not say what metrics.json says")


def _downloaded(repository: str, revision: str | None, token: str | None) -> Path:
    hub = _hub()
    try:
        return Path(
            hub.snapshot_download(
                repository, revision=revision, token=token, allow_patterns=[*FILES]
            )
        )
    except (OSError, hub.errors.HFValidationError) as error:
        raise UsageError(
            f"{repository} is no folder, and cannot be had from the hub: {_line(error)}"
        ) from error


def _digest(folder: Path) -> str:
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise missing_extra("huggingface_hub", "data") from error
    return huggingface_hub
