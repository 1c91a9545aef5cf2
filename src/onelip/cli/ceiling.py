"""``onelip ceiling``: certified accuracy that no classifier exceeds on a data set."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

from onelip.cli.arguments import DATA, new_parser
from onelip.errors import UsageError
from onelip.image_sets import OWN, SHAPES


def run(arguments: list[str]) -> None:
    """Print a table."""
    options = _parsed(arguments)
    radii = [_radius(word) for word in options.eps.split(",")]
    from onelip.experiments.ceiling import ceiling_record, ceiling_text  # help needs no torch

    record = ceiling_record(options.dataset, options.data, options.label, options.split, radii)
    print(json.dumps(record, indent=1) if options.json else ceiling_text(record))


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("ceiling")
    names = ", ".join(SHAPES)
    about = f"{names}; data of your own by default, which --data names"
    parser.add_argument("dataset", nargs="?", default=OWN, choices=[*SHAPES, OWN], help=about)
    parser.add_argument("--data", type=Path, help=DATA)
    parser.add_argument("--label", help="column of the labels, in a table of your own")
    parser.add_argument("--split", choices=("train", "test"), default="test", help="which inputs")
    radii = "radii, as 36/255,0.5,1.58"
    parser.add_argument("--eps", default="36/255,72/255,108/255", help=radii)
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    return parser.parse_args(arguments)


def _radius(word: str) -> Fraction:
    """A radius as a fraction, exactly as it is written."""
    try:
        radius = Fraction(word.strip())
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--eps takes radii, as 36/255,0.5,1.58, got {word!r}") from None
    if radius < 0:
        raise UsageError(f"--eps must not be negative, got {word}")
    return radius
