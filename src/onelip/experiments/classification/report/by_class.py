"""Accuracy by class."""

from collections.abc import Sequence
from fractions import Fraction

from onelip.experiments.classification.report.markup import (
    Html,
    details,
    element,
    joined,
    note,
    section,
    table,
)
from onelip.experiments.classification.report.shares import Share, share
from onelip.experiments.classification.report.subjects import Subject, eps_text


def class_section(of: Sequence[Subject]) -> Html:
    """Return the section."""
    parts = [
        element("div", _table(subject), class_="classes", data_subject=place)
        for place, subject in enumerate(of)
    ]
    if len(of) > 1:
        pairs = zip(of, parts, strict=True)
        parts = [details(subject.label, part, open=subject is of[0]) for subject, part in pairs]
    words = "Clean accuracy, and certified accuracy at radii: per cent of a class, rounded down. "
    live = element("span", "The last column follows the slider.", data_script=True)
    return section("classes", "By class", note(words, live), joined(parts))


def _table(subject: Subject) -> Html:
    heads = [f"at {eps_text(eps, subject.info)}" for eps in subject.eps]
    rows = []
    for label, name in enumerate(subject.info.classes):
        samples = sum(int((seed.labels == label).sum()) for seed in subject.radii)
        shares = [_share(subject, label, eps) for eps in (None, *subject.eps)]
        cells = ["-" if samples == 0 else found.text for found in shares]
        rows.append([name, str(samples // len(subject.radii)), *cells])
    return table(
        f"Clean and certified accuracy by class: {subject.label}",
        ["class", "samples", "clean", *heads],
        {"": rows},
    )


def _share(subject: Subject, label: int, eps: float | None) -> Share:
    """Share of a class that is right, and certified beyond a radius if one is given."""
    counts = []
    for seed in subject.radii:
        of_class = seed.labels == label
        found = seed.right & of_class
        found = found if eps is None else found & (seed.radius > eps)
        counts.append((Fraction(int(found.sum())), int(of_class.sum())))
    return share(counts)
