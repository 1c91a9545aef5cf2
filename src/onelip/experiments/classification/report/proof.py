"""A proof in the page, with a checker that compares it with what the page shows."""

import base64
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from onelip.checker.page import build
from onelip.directed_rounding import downwards, upwards
from onelip.errors import UsageError
from onelip.experiments.classification.report.gallery import shown
from onelip.experiments.classification.report.markup import (
    Html,
    details,
    element,
    joined,
    note,
    section,
    table,
)
from onelip.experiments.classification.report.subjects import Subject, eps_text
from onelip.proofs import prove

_FILES = {"proof.json": "proof-json", "tensors.safetensors": "proof-tensors"}
_TRUST = (
    "A checker that came with the claim proves little: whoever made the claim may have made this "
    "page, its button and its green. Save the two files below in one folder and open that in a "
    "copy of the checker of your own: make checker-page writes it from the source of onelip, as "
    "build/onelip-check.html, and onelip check and the program onelip-check say the same."
)
_SCOPE = (
    "The button runs the whole proof again on this machine, without a network: the bound, and the "
    "radius of each carried sample from a forward pass. Then it compares what this page shows with "
    "what was proved: bounds, radii and predictions in the samples above and in the data of the "
    "curves, the images, and the tables here. Not proved: numbers of test samples that are not "
    "carried, attacks, training, labels, and the names of classes."
)


@dataclass(frozen=True)
class Proof:
    """A bundle, and what the page says of it.

    Attributes:
        files: of the bundle, by name.
        record: what ``proof.json`` holds.
        rows: carried test samples.
        subject: that it belongs to.
    """

    files: dict[str, bytes]
    record: dict[str, Any]
    rows: list[int]
    subject: Subject

    @property
    def radii(self) -> list[float]:
        """Proved radii of the carried samples."""
        return [float.fromhex(radius) for radius in self.record["samples"]["radii"]]


def proof_of(of: Sequence[Subject], data: Path | None) -> tuple[list[Subject], Proof]:
    """Prove the samples of the gallery; with the subject that shows nothing beyond the proof.

    Where the bundle proves a smaller radius or a larger bound than the record has, the page has
    those of the bundle.

    Raises:
        NotApplicableError: a part of the network has no proof.
        UsageError: there are several runs, or no Go, or data or weights are missing or others.
    """
    if len(of) != 1 or len(of[0].folders) != 1:
        raise UsageError("report --prove takes a single run: name one of them")
    if shutil.which("go") is None:
        raise UsageError(
            "report --prove needs Go, which compiles the checker into the page: install it from "
            "go.dev, or leave --prove away and send what onelip prove writes"
        )
    (subject,) = of
    (run,), (radii,) = subject.folders, subject.radii
    network, rows, _, inputs, _ = shown(subject, data)
    level = "real" if subject.certify["level"] == "real" else "float"
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        record = prove(network, bundle, inputs, level=level, about=f"run of {run.recipe.name}")
        files = {name: (bundle / name).read_bytes() for name in _FILES}
    proof = Proof(files, record, rows.tolist(), subject)
    predicted = torch.tensor(record["samples"]["predictions"])
    if not torch.equal(predicted, radii.prediction[rows].cpu()):
        raise UsageError(f"the radii are those of other weights: onelip certify {run.path}")
    radius = radii.radius.double().clone()
    radius[rows] = torch.minimum(radius[rows], torch.tensor(proof.radii, dtype=torch.float64))
    said: Any = {**subject.records[0]}
    bound = max(said["certify"]["bound"], float.fromhex(record["bound"]))
    said["certify"] = {**said["certify"], "bound": bound}
    lower = replace(subject, radii=[replace(radii, radius=radius)], records=[said])
    return [lower], replace(proof, subject=lower)


def proof_section(proof: Proof) -> Html:
    """Return the section, with bundle and checker inside."""
    try:
        wasm, worker = build.compiled(), build.worker_of(build.loader())
        version = build.told("env", "GOVERSION")
    except (subprocess.CalledProcessError, OSError) as error:
        raise UsageError(f"Go cannot compile the checker ({error}): leave --prove away") from None
    level = proof.record["level"]
    words = level if level == "real" else f"float, {level['numbers']}, sums in {level['sums']}"
    facts = [
        ("Lipschitz constant", upwards(float.fromhex(proof.record["bound"]), 9), "proof-bound"),
        ("level", words, "proof-level"),
    ]
    embedded = {name: base64.b64encode(data).decode() for name, data in proof.files.items()}
    carried = [
        *((_FILES[name], text) for name, text in embedded.items()),
        ("proof-wasm", build.packed(wasm)),
        ("proof-worker", worker),
    ]
    running = element(
        "div",
        element("p", "", id="proof-now", role="status", aria_live="polite"),
        element("progress", id="proof-progress", aria_label="Checking"),
        element("button", "Cancel", type="button", id="proof-cancel"),
        id="proof-running",
        hidden=True,
    )
    button = element("button", "Check the numbers of this page", type="button", id="proof-check")
    saves = [
        element("button", f"Save {name}", type="button", data_save=name, data_script=True)
        for name in proof.files
    ]
    return section(
        "proof",
        "Proof",
        note(_SCOPE),
        element("div", button, data_script=True),
        running,
        element("div", id="proof-verdict", role="status", aria_live="assertive"),
        element("ul", id="proof-wrong"),
        element("dl", *(_fact(*fact) for fact in facts), class_="proved"),
        _counts(proof),
        details("The carried samples, as a table", _samples(proof)),
        details("What the checker said, line by line", element("ol", id="proof-lines")),
        element("h3", "Whose checker is this?"),
        note(_TRUST),
        element("div", *saves, class_="jumps"),
        _digests(proof),
        note(f"WebAssembly by {version}, SHA-256 {hashlib.sha256(wasm).hexdigest()}."),
        *(element("script", Html(text), type="text/plain", id=name) for name, text in carried),
    )


def _fact(name: str, text: str, place: str) -> Html:
    return joined([element("dt", name), element("dd", text, id=place)])


def _counts(proof: Proof) -> Html:
    """Certified accuracy of the carried samples, at the radii of the recipe."""
    subject, right = proof.subject, proof.subject.radii[0].right[proof.rows].tolist()
    pairs = list(zip(proof.radii, right, strict=True))
    rows = []
    for eps in [0.0, *subject.eps]:
        text = eps_text(eps, subject.info) if eps else "0"
        count = sum(Fraction(radius) > Fraction(text) for radius, good in pairs if good)
        rows.append([text, f"{count} of {len(pairs)}"])
    caption = "Carried samples that are certified, by the proof"
    return table(caption, ["eps", "certified"], {"": rows}, mark="data_proof_eps")


def _samples(proof: Proof) -> Html:
    names, (radii,) = proof.subject.info.classes, proof.subject.radii
    rows = []
    predicted = proof.record["samples"]["predictions"]
    for row, kind, radius in zip(proof.rows, predicted, proof.radii, strict=True):
        label = int(radii.labels[row])
        cells = [str(row), f"{label}: {names[label]}", f"{kind}: {names[kind]}"]
        rows.append([*cells, downwards(radius, 9)])
    columns = ["test sample", "label", "predicted", "proved radius"]
    return table("Carried samples", columns, {"": rows}, mark="data_proof_row")


def _digests(proof: Proof) -> Html:
    rows = [
        [name, str(len(data)), hashlib.sha256(data).hexdigest()]
        for name, data in proof.files.items()
    ]
    columns = ["file", "bytes", "SHA-256"]
    return table("Files of the bundle", columns, {"": rows}, mark="data_proof_file")
