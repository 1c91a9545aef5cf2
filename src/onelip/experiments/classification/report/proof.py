"""The proof of a run inside its report: a bundle, the checker, and what is compared with them."""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onelip.checker.page import build
from onelip.directed_rounding import upwards
from onelip.errors import UsageError
from onelip.experiments.classification.attack import attacked_rows
from onelip.experiments.classification.prove import prove_run
from onelip.experiments.classification.report.markup import (
    Html,
    element,
    joined,
    note,
    section,
    table,
)
from onelip.experiments.classification.report.subjects import Subject, eps_text

_FILES = {"proof.json": "bundle-proof", "tensors.safetensors": "bundle-tensors"}


@dataclass(frozen=True)
class Checker:
    """The checker in Go for browsers.

    Attributes:
        wasm: its WebAssembly, gzipped, in base64.
        worker: the script that runs it.
        digest: SHA-256 of the WebAssembly.
    """

    wasm: str
    worker: str
    digest: str

    @classmethod
    def found(cls, page: Path | None) -> "Checker":
        """Take it out of a page that ``make checker-page`` wrote, or build it with Go.

        Raises:
            UsageError: there is neither.
        """
        if page is None:
            if shutil.which("go") is None:
                raise UsageError(
                    "--prove builds the checker with Go, and there is no go here: install it, or "
                    "give a page that make checker-page wrote elsewhere by --checker"
                )
            with tempfile.TemporaryDirectory() as folder:
                page = Path(folder) / "onelip-check.html"
                build.write(page)
                return cls.found(page)
        try:
            text = page.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"--checker {page} cannot be read: make checker-page") from None
        parts = [
            re.search(pattern, text, re.DOTALL)
            for pattern in (
                r'<script type="text/plain" id="wasm">([A-Za-z0-9+/=]+)</script>',
                r'<script type="text/plain" id="worker">(.*?)</script>',
                r'<pre id="digest"[^>]*>([0-9a-f]{64})</pre>',
            )
        ]
        wasm, worker, digest = (part and part[1] for part in parts)
        if not wasm or not worker or not digest:
            raise UsageError(f"--checker {page} is no page that make checker-page wrote")
        return cls(wasm, worker, digest)


@dataclass(frozen=True)
class Proof:
    """A bundle of the network of a run, with test samples.

    Attributes:
        rows: of the test set.
        radius: proved ones, float64.
        prediction: proved ones, where the radius is above 0.
        bound: proved constant of the network.
        files: contents, by name.
    """

    rows: list[int]
    radius: Tensor
    prediction: Tensor
    bound: float
    files: dict[str, bytes]

    @classmethod
    def of(cls, subject: Subject, data: Path | None, samples: int, gallery: int) -> "Proof":
        """Write and check a bundle with the samples of the gallery, and others.

        Raises:
            UsageError: no samples are asked for.
            NotApplicableError: the network has no proof in bundles.
        """
        if samples < 1:
            raise UsageError(f"--prove takes a number of samples above 0, got {samples}")
        run, count = subject.folders[0], len(subject.radii[0].labels)
        rows = torch.cat([attacked_rows(count, gallery), attacked_rows(count, samples)]).unique()
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            record = prove_run(run, bundle, data, rows=rows, level=subject.certify["level"])
            files = {name: (bundle / name).read_bytes() for name in _FILES}
        found = record["samples"]
        radius = torch.tensor([float.fromhex(text) for text in found["radii"]], dtype=torch.float64)
        prediction = torch.tensor(found["predictions"])
        bound = float.fromhex(record["bound"])
        return cls(rows.tolist(), radius, prediction, bound, files)

    def applied(self, subject: Subject) -> Subject:
        """Lower the radii of the samples to those that the bundle proves."""
        (radii,), rows = subject.radii, torch.tensor(self.rows)
        same = radii.prediction[rows] == self.prediction
        proved = torch.where(same, self.radius, 0.0)
        radius = radii.radius.double().clone()
        radius[rows] = torch.minimum(radius[rows], proved)
        return replace(subject, radii=[replace(radii, radius=radius)])

    def data(self, subject: Subject) -> dict[str, Any]:
        """What the page's script needs: rows of the samples, and names of the classes."""
        return {"rows": self.rows, "names": list(subject.info.classes)}


def proof_section(subject: Subject, proof: Proof, checker: Checker) -> Html:
    """Return the section, with bundle and checker in it."""
    labels = subject.radii[0].labels[proof.rows]
    right = proof.prediction == labels
    eps = [("0", 0.0), *((eps_text(e, subject.info), e) for e in sorted(subject.eps) if e > 0)]
    shares = [
        [text, f"{int((right & (proof.radius > e)).sum())} of {len(labels)}"] for text, e in eps
    ]
    files = [
        [name, f"{len(content):,}", hashlib.sha256(content).hexdigest()]
        for name, content in proof.files.items()
    ]
    parts: Sequence[Html] = [
        note(
            f"This file carries the network, {len(labels)} test samples, and a checker that "
            "computes in exact integers. It proves the bound, the predictions and the radii on "
            "your machine, and compares with them what this page shows of these samples: their "
            "images, predictions and radii below, the table here, and their radii in the figures. "
            "Figures and shares of all test samples rest on the library that wrote the page."
        ),
        element(
            "div",
            element("button", "Prove it here", type="button", id="prove"),
            " ",
            *_saves(),
            data_script=True,
        ),
        element("div", id="proof-verdict", role="status", aria_live="assertive"),
        element("ul", id="proof-wrong"),
        element(
            "div",
            element("p", id="proof-now", role="status", aria_live="polite"),
            element("progress", id="proof-progress", aria_labelledby="proof-title"),
            " ",
            element("button", "Cancel", type="button", id="proof-cancel"),
            id="proving",
            hidden=True,
        ),
        element("ol", id="proof-lines"),
        element(
            "p",
            "Proved Lipschitz bound of the network: ",
            element("span", upwards(proof.bound, 9), data_proved_bound=True),
        ),
        _named(
            "carried",
            table(
                "Samples of this file that are right, with a proved radius above eps",
                ["eps", "certified"],
                {"": shares},
            ),
        ),
        _named("bundle", table("The proof", ["file", "bytes", "SHA-256"], {"": files})),
        note(
            "Whose checker is this? It came with the claim, and who made the claim may have "
            "changed it. To be convinced, save both files of the proof, and open them in a copy "
            "of your own: the page build/onelip-check.html (make checker-page) or the program "
            "build/onelip-check (make checker), both from the source of onelip by Go alone. The "
            f"WebAssembly in this file should have the SHA-256 {checker.digest}. Labels of "
            "samples are taken on trust, and so is that this network is the one that is in use."
        ),
    ]
    return section("proof", "Proof", *parts)


def embedded(proof: Proof, checker: Checker) -> Html:
    """Return bundle and checker as elements that nothing runs by itself."""
    contents = {_FILES[name]: build.base64_of(content) for name, content in proof.files.items()}
    contents |= {"wasm": checker.wasm, "worker": checker.worker}
    return joined(
        Html(f'<script type="text/plain" id="{name}">{text}</script>\n')
        for name, text in contents.items()
    )


def _saves() -> list[Html]:
    """Return buttons that save the files of the bundle."""
    return [element("button", f"Save {name}", type="button", data_save=name) for name in _FILES]


def _named(name: str, whole: Html) -> Html:
    """Give a table an id."""
    return Html(whole.replace("<table>", f'<table id="{name}">', 1))
