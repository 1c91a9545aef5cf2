"""Accuracy against eps: a figure with a slider, and the table at the recipe's radii."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Literal

from onelip.experiments.classification.report.grid import Grid
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

_ROWS = 24


def accuracy_section(of: Sequence[Subject], grid: Grid) -> Html:
    """Return the section."""
    return section(
        "accuracy",
        "Accuracy against eps",
        note(
            "A sample counts as certified at eps if it is predicted right and its proved radius is "
            "larger than eps. Certified accuracy is never above that under any attack that "
            "there is; the attacks that were tried bound it from above. Shares are rounded down."
        ),
        element("ul", class_="legend", id="legend"),
        element("div", id="accuracy-plot", class_="plot"),
        _slider(grid),
        element("div", id="readout", class_="readout"),
        element("div", id="spoken", role="status", aria_live="polite", class_="unseen"),
        table(
            "Accuracy in per cent at the radii of the recipe",
            ["eps", *(text for text, _ in _radii(of))],
            {(subject.label if len(of) > 1 else ""): _rows(subject, of) for subject in of},
        ),
        details("Certified accuracy at more radii, as a table", _more(of, grid)),
    )


def _slider(grid: Grid) -> Html:
    """Return slider, and buttons for the radii of the recipe."""
    jumps = [
        element("button", text, type="button", data_place=place) for place, text in grid.marks()
    ]
    slider = element(
        "input",
        type="range",
        id="eps",
        min=0,
        max=len(grid.values) - 1,
        step=1,
        value=grid.start,
        aria_describedby="eps-unit",
        list="eps-marks",
    )
    marks = [element("option", value=place, label=text) for place, text in grid.marks()]
    return element(
        "div",
        element("label", "eps ", element("output", "", id="eps-value", for_="eps"), for_="eps"),
        slider,
        element("datalist", *marks, id="eps-marks"),
        element("div", *jumps, class_="jumps", role="group", aria_label="radii of the recipe"),
        element("p", f"l2 distance, {grid.unit}", id="eps-unit", class_="note"),
        class_="slider",
        data_script=True,
    )


def _radii(of: Sequence[Subject]) -> list[tuple[str, float]]:
    """All radii of all recipes, with 0, as text and as numbers."""
    found = {eps: eps_text(eps, subject.info) for subject in of for eps in subject.eps}
    return [("0 (clean)", 0.0), *((found[eps], eps) for eps in sorted(found))]


def _cell(share: Share | None) -> str:
    """Return a share with its deviation below."""
    if share is None:
        return "-"
    return joined([share.text, *([element("small", t)] if (t := share.spread_text) else [])])


def _rows(subject: Subject, of: Sequence[Subject]) -> list[list[str]]:
    """Rows of certified and attacked accuracy at all radii."""
    samples = subject.certify["test"]["samples"]
    certified = {0.0: subject.clean()} | {eps: subject.certified(eps) for eps in subject.eps}
    found: list[tuple[str, dict[float, Share]]] = [(f"certified, all {samples}", certified)]
    kinds: tuple[Literal["certified", "attacked"], ...] = ("certified", "attacked")
    for key, (record, *_) in subject.attacks.items():
        for what in kinds:
            if what == "attacked":
                found.append((f"attacked: {key}", subject.under_attack(key, what)))
            elif record["samples"] < samples:
                words = f"certified, the {record['samples']} that are attacked"
                found.append((words, subject.under_attack(key, what)))
    return [[name, *(_cell(values.get(eps)) for _, eps in _radii(of))] for name, values in found]


def _more(of: Sequence[Subject], grid: Grid) -> Html:
    """Return certified accuracy at some radii of the slider."""
    step = max(1, len(grid.values) // _ROWS)
    rows = [
        [grid.texts[place], *(_certified(subject, grid.values[place]).text for subject in of)]
        for place in range(0, len(grid.values), step)
    ]
    names = ["certified"] if len(of) == 1 else [subject.label for subject in of]
    return table("Certified accuracy in per cent", ["eps", *names], {"": rows})


def _certified(subject: Subject, eps: float) -> Share:
    return share(
        [
            (Fraction(int((seed.right & (seed.radius > eps)).sum())), len(seed.labels))
            for seed in subject.radii
        ]
    )
