"""What the script of a report draws: radii of all samples, attacks and training curves."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from onelip.experiments.classification.report.grid import Grid
from onelip.experiments.classification.report.markup import Html
from onelip.experiments.classification.report.subjects import Subject, below, eps_text
from onelip.experiments.classification.report.training_curves import metrics, values


def page_data(of: Sequence[Subject], grid: Grid) -> Html:
    """Return JSON that nothing can end early, in a script element.

    Radii are little-endian float32, each rounded downwards; predictions and labels uint16.
    """
    content = {
        "grid": grid.values,
        "texts": grid.texts,
        "unit": grid.unit,
        "subjects": [_subject(subject) for subject in of],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(text)


def _subject(subject: Subject) -> dict[str, Any]:
    return {
        "label": subject.label,
        "classes": len(subject.info.classes),
        "seeds": [
            {
                "radius": _encoded(below(seed.radius)),
                "prediction": _classes(seed.prediction),
                "label": _classes(seed.labels),
            }
            for seed in subject.radii
        ],
        "attack": _attack(subject),
        "training": {
            name: [values(subject, place, name) for place in range(len(subject.folders))]
            for name in metrics(subject)
        },
    }


def _attack(subject: Subject) -> dict[str, Any] | None:
    """Return the fullest attack: accuracy in per cent at each radius, clean at 0."""
    if subject.attacked not in subject.attacks:
        return None
    shares = subject.under_attack(subject.attacked, "attacked")
    return {
        "name": subject.attacked,
        "at": [
            {
                "eps": eps,
                "eps_text": eps_text(eps, subject.info),
                "value": float(100 * share.mean),
                "text": share.text,
                "spread": share.spread_text,
            }
            for eps, share in sorted(shares.items())
        ],
    }


def _classes(values: Tensor) -> str:
    return _encoded(values.numpy().astype("<u2"))


def _encoded(values: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
