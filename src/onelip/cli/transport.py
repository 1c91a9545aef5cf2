"""``onelip transport``: a lower bound of the Wasserstein-1 distance of two samples."""

import json
from typing import Any

from onelip.cli.arguments import bracketed, run_parser, settings_of
from onelip.experiments.transport.run import TransportRun
from onelip.experiments.transport.settings import TransportSettings
from onelip.experiments.transport.text import transport_text


def run(arguments: list[str]) -> None:
    """Train and judge a critic, or go on with a run."""
    options = _parsed(arguments)
    settings = settings_of(TransportSettings, options)
    if settings is None:
        started = TransportRun.open(options.resume)
    else:
        started = TransportRun.create(settings, options.out)
    folder = started.folder
    try:
        content = started.finish(progress=not options.quiet)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {folder.resume}") from None
    if options.json:
        print(json.dumps(content, indent=1))
        return
    figure = folder.path / "transport.png"
    print(f"{transport_text(content)}\n\nrecord {folder.record}\nfigure {figure}")


def _parsed(arguments: list[str]) -> Any:
    parser = run_parser("transport", arguments, _add_settings)
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    return parser.parse_args(bracketed(arguments, "widths"))


def _add_settings(parser: Any) -> None:
    words = "a.npy, a.npz:KEY, a.pt, a folder of images, NAME[:SPLIT[:CLASS]], or of a WGAN"
    parser.add_argument("p", nargs="?", help=f"samples of P: {words}")
    parser.add_argument("q", nargs="?", help="samples of Q, likewise")
    parser.add_class_arguments(TransportSettings, skip={"p", "q", "exact", "fresh"})
    parser.add_argument("--fresh", action="store_true", help="train on new samples at each step")
    parser.add_argument("--exact", action="store_true", help="the exact distance, if it fits")
