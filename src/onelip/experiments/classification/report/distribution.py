"""How large the certified radii are."""

from collections.abc import Sequence

import torch

from onelip.directed_rounding import downwards
from onelip.experiments.classification.report.markup import Html, element, note, section, table
from onelip.experiments.classification.report.subjects import Subject

_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_NAMES = ("least", "5 %", "25 %", "median", "75 %", "95 %", "largest")


def distribution_section(of: Sequence[Subject]) -> Html:
    """Return the section."""
    title = "Certified radii of samples that are predicted right, rounded down"
    return section(
        "radii",
        "Certified radii",
        note("Samples that are predicted right, by their radius. The line is at the slider's eps."),
        element("div", id="radii-plot", class_="plot"),
        table(title, ["", "samples", *_NAMES], {"": [_row(subject) for subject in of]}),
    )


def _row(subject: Subject) -> list[str]:
    """Quantiles of radii, each that of a sample, of all seeds together."""
    ranked = torch.cat([seed.radius[seed.right].double() for seed in subject.radii]).sort().values
    if not len(ranked):
        return [subject.label, "0", *("-" for _ in _QUANTILES)]
    chosen = [float(ranked[int(share * (len(ranked) - 1))]) for share in _QUANTILES]
    return [subject.label, str(len(ranked)), *(downwards(radius, 4) for radius in chosen)]
