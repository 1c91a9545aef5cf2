"""``onelip wgan``: a generator of images against a critic that is proved."""

from typing import Any

from onelip.cli.arguments import add_training_options, check_minutes, run_parser, settings_of
from onelip.errors import OnelipError
from onelip.experiments.wgan.folder import WGANFolder
from onelip.experiments.wgan.run import judge_wgan, load_images, train_wgan
from onelip.experiments.wgan.settings import WGANSettings
from onelip.experiments.wgan.text import wgan_text


def run(arguments: list[str]) -> None:
    """Train a WGAN or go on with a run, then judge its generator and draw it."""
    options = _parsed(arguments)
    settings = settings_of(WGANSettings, options)
    check_minutes(options)
    if settings is None:
        folder = WGANFolder.open(options.resume)
    else:
        settings.build()  # fail before there is a folder
        folder = WGANFolder.create(settings, options.out)
    try:
        complete = _finish(folder, options)
    except OnelipError:
        folder.discard()  # if it is new, and nothing is saved there yet
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"; go on with: {folder.resume}") from None
    if not complete:
        print(f"stopped in time; go on with: {folder.resume}")
        return
    print(f"{wgan_text(folder)}\n\nrecord {folder.record}")
    print(f"figures {folder.path / 'samples.png'}, {folder.path / 'history.png'}")


def _finish(folder: WGANFolder, options: Any) -> bool:
    """Train, judge the generator if that is complete, and return whether it is."""
    load_images(folder, "test", options.data)  # fail before training
    limits = {"max_minutes": options.max_minutes, "progress": not options.quiet}
    complete = train_wgan(folder, data=options.data, **limits)
    if complete:
        judge_wgan(folder, options.data, progress=not options.quiet)
    return complete


def _parsed(arguments: list[str]) -> Any:
    parser = run_parser("wgan", arguments, _add_settings)
    add_training_options(parser, "stop in time, to be resumed")
    return parser.parse_args(arguments)


def _add_settings(parser: Any) -> None:
    parser.add_argument("dataset", help="of the images")
    parser.add_class_arguments(WGANSettings, skip={"dataset"})
