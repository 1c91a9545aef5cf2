"""Some test samples: image, radius, runner-up, and the nearest attack that was found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from onelip.attacks import APGD, attack, judge
from onelip.certificates import full_precision
from onelip.data import LabelledSet
from onelip.directed_rounding import downwards, upwards
from onelip.errors import SoundnessError, UsageError
from onelip.experiments.classification.attack import attacked_rows
from onelip.experiments.classification.certify import tensors_for
from onelip.experiments.classification.load import network_of
from onelip.experiments.classification.report.images import png_uri
from onelip.experiments.classification.report.markup import (
    Html,
    details,
    element,
    joined,
    note,
    section,
)
from onelip.experiments.classification.report.subjects import Subject

_COUNT = 24
_COLUMNS = 8
_ATTACK = APGD("margin", targets=0, steps=20)
_LADDER = 12
_BISECTIONS = 12


@dataclass(frozen=True, eq=False)
class _Found:
    """Nearest adversarial examples.

    Attributes:
        examples: one for each sample.
        success: which of them are adversarial.
        distance: to the samples, float64.
        classes: that the network predicts for them.
    """

    examples: Tensor
    success: Tensor
    distance: Tensor
    classes: list[int]


class Shown(NamedTuple):
    """The network of the first run of a subject, and the test samples that a report shows.

    Attributes:
        network: exported, in the dtype of the certificate.
        rows: of the test set.
        chosen: these samples.
        inputs: of the network.
        labels: ``(n,)``.
    """

    network: nn.Module
    rows: Tensor
    chosen: LabelledSet
    inputs: Tensor
    labels: Tensor


def shown(subject: Subject, data: Path | None) -> Shown:
    """Load what a report shows of a subject.

    Raises:
        UsageError: weights or data are missing, or the test set is another one.
    """
    run, radii = subject.folders[0], subject.radii[0]
    network: nn.Module = network_of(run)
    if str(subject.certify.get("logits", "")).startswith("float64"):
        network = network.double()
    test = run.data(data).test
    if not torch.equal(test.labels, radii.labels):
        raise UsageError("the test set is another than that of the certificate: name it by --data")
    rows = attacked_rows(len(test), _COUNT)
    chosen = test.subset(rows)
    return Shown(network, rows, chosen, *tensors_for(network, chosen))


def gallery_section(of: Sequence[Subject], data: Path | None, say: Callable[[str], None]) -> Html:
    """Return the section.

    Args:
        of: subjects; the first run of each is shown.
        data: place of the data, if they are elsewhere now.
        say: takes a line for each gallery that is left out.

    Raises:
        SoundnessError: an attack succeeded inside a certified radius.
    """
    parts = []
    for subject in of:
        try:
            part = _gallery(subject, data)
        except UsageError as error:
            say(f"no gallery of {subject.folders[0].path}: {error}")
            part = element("p", f"No gallery: {error}.", class_="missing")
        parts.append(part if len(of) == 1 else _opening(subject, part, subject is of[0]))
    rule = (
        f"Up to {_COUNT} test samples, spread evenly over the test set in its own order; none is "
        "chosen for what it shows. The radius is proved and rounded down. The runner-up is the "
        "class of the second largest logit. The attack is the closest example of another class "
        f"that AutoPGD found ({_ATTACK.steps} steps at each of {_LADDER + 1} radii, then bisected "
        "towards the sample), its distance rounded up: the nearest example of all is between "
        "radius and distance. Images are shown with 8 bits a channel."
    )
    return section("gallery", "Samples", note(rule), joined(parts))


def _opening(subject: Subject, part: Html, first: bool) -> Html:
    seed = f", seed {subject.seeds[0]}" if len(subject.seeds) > 1 else ""
    return details(f"{subject.label}{seed}", part, open=first)


def _gallery(subject: Subject, data: Path | None) -> Html:
    """Return the samples of the first run of a subject.

    Raises:
        UsageError: weights or data are missing, or are others.
    """
    run, radii = subject.folders[0], subject.radii[0]
    network, rows, chosen, inputs, labels = shown(subject, data)
    with torch.no_grad(), full_precision(inputs.device):
        logits: Tensor = network(inputs)
    stored, radius_of = radii.prediction[rows], radii.radius[rows]
    if bool(((logits.argmax(1) != stored) & (radius_of > 0)).any()):
        raise UsageError(f"the radii are those of other weights: onelip certify {run.path}")
    found, why = _nearest(network, inputs, labels, radius_of, subject)
    names = subject.info.classes
    items = []
    for place, row in enumerate(rows.tolist()):
        predicted = int(radii.prediction[row])
        others = logits[place].clone()
        others[predicted] = -torch.inf
        radius = float(radii.radius[row])
        right = predicted == int(labels[place])
        facts = [
            ("label", names[int(labels[place])]),
            ("predicted", names[predicted] + ("" if right else " (wrong)")),
            ("radius", downwards(radius, 4) if right else "none"),
            ("runner-up", names[int(others.argmax())]),
        ]
        pictures = [_picture(chosen, inputs, place, f"test sample {row}", subject)]
        if found is not None and right:
            words, picture = _attacked(found, place, row, radius, names)
            facts += words
            pictures += picture
        items.append(_item(row, pictures, facts, right))
    missing = [element("p", why, class_="missing")] if why else []
    return joined([*missing, element("ul", *items, class_="gallery")])


def _nearest(
    network: nn.Module, inputs: Tensor, labels: Tensor, radius: Tensor, subject: Subject
) -> tuple[_Found | None, str]:
    """Return the nearest adversarial examples, or None and why there are none."""
    if subject.info.box is None:
        return None, "Nearest attacks are looked for among images, not in tables."
    top = float(radius.max())
    ladder = [2 * top * (step + 1) / _LADDER for step in range(_LADDER)]
    with full_precision(inputs.device):
        found = attack(network, inputs, labels, 0.0, [])
        for reach in [*ladder, 4 * top]:  # the smallest radius at which there is one
            rows = (~found.success).nonzero().squeeze(1)
            more = attack(network, inputs[rows], labels[rows], reach, [_ATTACK])
            for name in ("adversarial", "distance", "success"):
                getattr(found, name)[rows] = getattr(more, name)
        closer = _towards(network, inputs, labels, found.adversarial)
        result = judge(network, inputs, labels, closer, 4 * top)
        with torch.no_grad():
            classes = network(result.adversarial).argmax(1).tolist()
    return _Found(result.adversarial, result.success, result.distance, classes), ""


def _towards(network: nn.Module, inputs: Tensor, labels: Tensor, examples: Tensor) -> Tensor:
    """Bisect the ways from examples to their inputs as long as they stay adversarial."""
    low, high = torch.zeros(len(inputs)).to(inputs), torch.ones(len(inputs)).to(inputs)
    along = (-1, *(1 for _ in inputs.shape[1:]))
    with torch.no_grad():
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            tried = inputs + middle.view(along) * (examples - inputs)
            wrong = network(tried).argmax(1) != labels
            low, high = torch.where(wrong, low, middle), torch.where(wrong, middle, high)
    return inputs + high.view(along) * (examples - inputs)


def _attacked(
    found: _Found, place: int, row: int, radius: float, names: Sequence[str]
) -> tuple[list[tuple[str, str]], list[Html]]:
    """Return words and picture of the nearest example of a sample that is predicted right."""
    if not found.success[place]:
        return [("attack", "none found")], []
    distance = float(found.distance[place])
    if distance < radius:
        raise SoundnessError(
            f"sample {row} is certified to {radius:.6f} and was broken at {distance:.6f}: please "
            "report this run"
        )
    name = names[found.classes[place]]
    words = f"nearest attack found on test sample {row}, predicted {name}"
    image = element("img", src=png_uri(found.examples[place]), alt=words, class_="pixels")
    return [("attack at", upwards(distance, 4)), ("becomes", name)], [image]


def _picture(chosen: LabelledSet, inputs: Tensor, place: int, words: str, subject: Subject) -> Html:
    """Return an image, or the first columns of a row."""
    if subject.info.box is not None:
        return element("img", src=png_uri(inputs[place]), alt=words, class_="pixels")
    values = zip(subject.info.columns, chosen.inputs[place].tolist(), strict=True)
    shown = [joined([element("dt", name), element("dd", f"{value:.4g}")]) for name, value in values]
    left = len(shown) - _COLUMNS
    more = [element("dt", f"and {left} more columns")] if left > 0 else []
    return element("dl", *shown[:_COLUMNS], *more, class_="row")


def _item(row: int, pictures: list[Html], facts: list[tuple[str, str]], right: bool) -> Html:
    terms = [joined([element("dt", name), element("dd", words)]) for name, words in facts]
    shown = element("div", *pictures, class_="pictures")
    title = element("h3", f"Sample {row}")
    listed = element("dl", *terms, class_="facts")
    return element("li", title, shown, listed, class_="" if right else "wrong", data_row=row)
