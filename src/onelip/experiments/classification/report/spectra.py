"""Singular values of each layer before and after training."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onelip.errors import UsageError
from onelip.experiments.classification.report.markup import (
    Html,
    details,
    element,
    joined,
    note,
    section,
    table,
)
from onelip.experiments.classification.report.subjects import Subject
from onelip.experiments.classification.singular_values import summarised

_NAMES = ("min", "10 %", "median", "90 %", "max")
_WIDTH = 200


def spectra_section(of: Sequence[Subject], say: Callable[[str], None]) -> Html:
    """Return the section.

    Args:
        of: subjects; the first run of each is shown.
        say: takes a line for each subject whose values are left out.
    """
    parts = []
    for subject in of:
        try:
            part = _table(subject)
        except UsageError as error:
            say(f"no singular values of {subject.folders[0].path}: {error}")
            part = element("p", f"No singular values: {error}.", class_="missing")
        seed = f", seed {subject.seeds[0]}" if len(subject.seeds) > 1 else ""
        parts.append(
            part if len(of) == 1 else details(subject.label + seed, part, open=subject is of[0])
        )
    words = (
        "Of dense layers and circular convolutions of the exported network, computed in float64: "
        "measured, not proved. The thin line is from the least to the largest, the bar from 10 % "
        "to 90 %, the tick is the median; the vertical line is 1."
    )
    return section("spectra", "Singular values", note(words), joined(parts))


def _table(subject: Subject) -> Html:
    """Return a row for each layer and time.

    Raises:
        UsageError: there are none, or the record holds something else.
    """
    run = subject.folders[0]
    found = summarised(run)
    if not all(_is_summary(entry) for entry in found.values()):
        raise UsageError(f"{run.record} holds no singular values: onelip plot --singular-values")
    top = 1.05 * max(1.0, *(entry[when]["max"] for entry in found.values() for when in entry))
    bodies = {
        name: [
            [
                f"{when} training",
                _bar(entry[when], top),
                *(_written(entry[when][q]) for q in _NAMES),
            ]
            for when in ("before", "after")
        ]
        for name, entry in found.items()
    }
    return table("Singular values by layer", ["", "0 to " + f"{top:.3g}", *_NAMES], bodies)


def _is_summary(entry: Any) -> bool:
    """Check what the schema of the record leaves open."""
    if not isinstance(entry, Mapping) or set(entry) != {"before", "after"}:
        return False
    numbers = [of.get(name) for of in entry.values() if isinstance(of, Mapping) for name in _NAMES]
    return len(numbers) == 2 * len(_NAMES) and all(
        isinstance(value, float | int) and math.isfinite(value) and 0 <= value < 1e300
        for value in numbers
    )


def _bar(entry: Mapping[str, float], top: float) -> Html:
    """Draw five numbers on one line; the cells beside it say them."""
    at = {name: round(_WIDTH * entry[name] / top, 2) for name in _NAMES}
    one = round(_WIDTH / top, 2)
    return element(
        "svg",
        element("line", x1=one, x2=one, y1=0, y2=18, class_="one"),
        element("line", x1=at["min"], x2=at["max"], y1=9, y2=9, class_="range"),
        element(
            "rect",
            x=at["10 %"],
            y=5,
            width=max(1.0, round(at["90 %"] - at["10 %"], 2)),
            height=8,
            class_="middle",
        ),
        element("line", x1=at["median"], x2=at["median"], y1=3, y2=15, class_="median"),
        viewBox=f"0 0 {_WIDTH} 18",
        class_="bar",
        aria_hidden="true",
    )


def _written(value: float) -> str:
    return f"{value:.4f}"
