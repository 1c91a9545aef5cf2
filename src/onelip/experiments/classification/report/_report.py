"""Report of runs: one HTML file that opens without a network, now and in ten years."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from string import Template

from onelip.atomic_files import atomic_write
from onelip.checker.page import build
from onelip.errors import UsageError
from onelip.experiments.classification.comparison import Run
from onelip.experiments.classification.recipe import Recipe
from onelip.experiments.classification.report.accuracy import accuracy_section
from onelip.experiments.classification.report.by_class import class_section
from onelip.experiments.classification.report.certificate import certificate_section
from onelip.experiments.classification.report.distribution import distribution_section
from onelip.experiments.classification.report.gallery import gallery_section
from onelip.experiments.classification.report.grid import grid_of
from onelip.experiments.classification.report.markup import Html, element, joined
from onelip.experiments.classification.report.page_data import page_data
from onelip.experiments.classification.report.proof import Proof, proof_of, proof_section
from onelip.experiments.classification.report.provenance import provenance_section
from onelip.experiments.classification.report.spectra import spectra_section
from onelip.experiments.classification.report.subjects import Subject, subjects
from onelip.experiments.classification.report.training_curves import training_section

_HERE = Path(__file__).parent
_SECTIONS = {
    "accuracy": "Accuracy",
    "radii": "Radii",
    "classes": "Classes",
    "gallery": "Samples",
    "training": "Training",
    "spectra": "Singular values",
    "certificate": "What is certified",
    "provenance": "Provenance",
}


def write_report(
    runs: Sequence[Run],
    target: Path | None = None,
    data: Path | None = None,
    *,
    recipes: Mapping[str, Recipe] | None = None,
    prove: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write a page of runs: curves, tables, samples, what is certified, and where it is from.

    The page is one file with its data, style and script inside; its content security policy lets
    nothing else in. No share and no radius in it is above what the runs' records prove.

    Cost: that of exporting each network, of its singular values, and of an attack on 24 images.

    Args:
        runs: certified, and attacked or not; those that differ only in their seed are averaged.
        target: an ``.html`` file; ``report.html`` in the folder of a single run.
        data: place of the data, if it is another than that the runs were trained from.
        recipes: the library's, by name; the page's commands give what differs from them.
        prove: put a proof and its checker into the page, which then proves its numbers again. It
            takes Go, and a single run.
        say: takes a line for each part that is left out, and why.

    Raises:
        NotApplicableError: a part of the network has no proof.
        UsageError: a run is not certified, its files contradict each other, or the file cannot be
            written.
        SoundnessError: an attack succeeded inside a certified radius.
    """
    target = _checked(target, runs)
    of, proof = subjects(runs), None
    if prove:
        of, proof = proof_of(of, data)
    page = _page(of, data, recipes or {}, proof, say)
    try:
        with atomic_write(target) as temporary:
            temporary.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written ({error.strerror}): choose another --out"
        ) from None
    return target


def _checked(target: Path | None, runs: Sequence[Run]) -> Path:
    """Return a path that a page can be written to, before anything is computed."""
    if not runs:
        raise UsageError("no runs to report: onelip train makes some")
    if target is None and len(runs) > 1:
        raise UsageError("a report of several runs needs a file: --out report.html")
    target = target or runs[0].path / "report.html"
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target} is no page: --out report.html")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise UsageError(f"--out {target}: name a file in a folder that exists")
    return target


def _page(
    of: Sequence[Subject],
    data: Path | None,
    recipes: Mapping[str, Recipe],
    proof: Proof | None,
    say: Callable[[str], None],
) -> str:
    """Put the page together."""
    grid = grid_of(of)
    sections = [
        accuracy_section(of, grid),
        distribution_section(of),
        class_section(of),
        gallery_section(of, data, say),
        training_section(of),
        spectra_section(of, say),
        certificate_section(of),
        provenance_section(of, recipes),
    ]
    sections += [] if proof is None else [proof_section(proof)]
    links = _SECTIONS if proof is None else _SECTIONS | {"proof": "Proof"}
    style, script, more = (_asset(name) for name in ("page.css", "page.js", "proof.js"))
    scripts = [script] if proof is None else [script, more]
    return Template(_asset("page.html")).substitute(
        policy=_policy([style], scripts, proof is not None),
        title=element("title", f"{_title(of)} - onelip report"),
        style=style,
        heading=element("h1", _title(of)),
        about=joined(_about(of)),
        links=joined(
            element("li", element("a", words, href=f"#{name}")) for name, words in links.items()
        ),
        sections=joined(sections),
        written=_written(),
        data=page_data(of, grid),
        script=script,
        more="" if proof is None else element("script", Html(more)),
    )


def _policy(styles: Sequence[str], scripts: Sequence[str], checker: bool) -> str:
    """Return a content security policy: these styles and scripts, images inside, nothing else.

    A checker is WebAssembly in a worker whose script is inside the page.
    """
    program = [" 'wasm-unsafe-eval'", "worker-src blob:"] if checker else [""]
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {' '.join(map(_digest, styles))}",
            f"script-src {' '.join(map(_digest, scripts))}{program[0]}",
            *program[1:],
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _digest(text: str) -> str:
    return f"'{build.digest(text)}'"


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _title(of: Sequence[Subject]) -> str:
    """Name the recipes."""
    names = list(dict.fromkeys(subject.folders[0].recipe.name for subject in of))
    return ", ".join(names) if len(names) < 4 else f"{len(names)} recipes"


def _about(of: Sequence[Subject]) -> list[Html]:
    """Say in a few lines what the runs are."""
    recipes = list(dict.fromkeys(subject.folders[0].recipe.about for subject in of))
    sets = [
        f"{subject.certify['test']['samples']} test samples of {subject.folders[0].recipe.dataset}"
        for subject in of
    ]
    proofs = [f"{subject.certify['method']}, level {subject.certify['level']}" for subject in of]
    seeds = [f"{len(subject.seeds)} seeds" for subject in of if len(subject.seeds) > 1]
    facts = [*sets, *proofs, *seeds, *(subject.certify["data"] for subject in of)]
    lines = [" / ".join(recipes[:3]), "; ".join(fact for fact in dict.fromkeys(facts) if fact)]
    return [element("p", line) for line in lines]


def _written() -> Html:
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    return element("p", f"Written by onelip {metadata.version('onelip')} on {now}.")
