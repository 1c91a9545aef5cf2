"""``onelip attack``: accuracy of a run under attack."""

from typing import Any

from onelip.attacks import ATTACKS, DEFAULT_ATTACKS
from onelip.cli.arguments import classification_run
from onelip.experiments import classification


def run(arguments: list[str]) -> None:
    """Attack a run."""
    folder, options = classification_run("attack", arguments, _add_options)
    names = tuple(name.strip() for name in options.attacks.split(","))
    classification.attack_run(folder, options.data, samples=options.samples, attacks=names)
    print(classification.table(folder.read(), folder.recipe))


def _add_options(parser: Any) -> None:
    parser.add_argument("--samples", type=int, help="test images to attack")
    parser.add_argument(
        "--attacks", default=",".join(DEFAULT_ATTACKS), help=f"of {', '.join(ATTACKS)}"
    )
