"""What training measured in each epoch."""

import math
from collections.abc import Sequence
from typing import Any

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

_ROWS = 30


def training_section(of: Sequence[Subject]) -> Html:
    """Return the section."""
    tables = [
        _table(subject, place)
        for subject in of
        for place in range(len(subject.folders))
        if metrics(subject)
    ]
    if not tables:
        return section("training", "Training", note("The record holds no epochs."))
    words = (
        "A line for each seed. These are the values that training reported: held-out accuracies "
        "are of images that the weights were not trained on, and nothing here is certified."
    )
    plots = element("div", id="training-plots", class_="small-plots")
    numbers = details("Epochs as tables", joined(tables))
    return section("training", "Training", note(words), plots, numbers)


def metrics(subject: Subject) -> list[str]:
    """Names of what was measured in each epoch of each run, seconds last."""
    epochs = [epoch for place in range(len(subject.folders)) for epoch in epochs_of(subject, place)]
    names = [name for name in (epochs[0] if epochs else {}) if name != "seconds"]
    known = [
        name for name in names if any(_number(epoch.get(name)) is not None for epoch in epochs)
    ]
    return [*known, "seconds"] if epochs else []


def epochs_of(subject: Subject, place: int) -> list[dict[str, Any]]:
    """Return what a run of a subject measured in each epoch."""
    record: dict[str, Any] = dict(subject.records[place])
    epochs: list[dict[str, Any]] = record["train"]["epochs"] if "train" in record else []
    return epochs


def values(subject: Subject, place: int, name: str) -> list[float | None]:
    """Return a metric of a run by epoch, None where it is no finite number."""
    return [_number(epoch.get(name)) for epoch in epochs_of(subject, place)]


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and abs(value) < 1e300 and math.isfinite(value) else None


def _table(subject: Subject, place: int) -> Html:
    names = metrics(subject)
    columns = [values(subject, place, name) for name in names]
    count = len(epochs_of(subject, place))
    step = max(1, math.ceil(count / _ROWS))
    chosen = sorted({*range(0, count, step), count - 1} if count else set())
    rows = [
        [str(row + 1), *("-" if of[row] is None else f"{of[row]:.4g}" for of in columns)]
        for row in chosen
    ]
    title = f"{subject.label}, seed {subject.seeds[place]}"
    return table(title, ["epoch", *(name.replace("_", " ") for name in names)], {"": rows})
