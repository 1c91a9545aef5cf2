"""Arguments that several commands share."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onelip.errors import UsageError, missing_extra
from onelip.experiments import classification
from onelip.method_names import AVERAGES

if TYPE_CHECKING:
    from onelip.experiments.settings import Settings

_Settings = TypeVar("_Settings", bound="Settings")
DATA = "place of the data: a folder, a file, hub:OWNER/NAME; published sets are downloaded"
"""Help of ``--data``."""


def add_average_option(parser: Any) -> None:
    """Add ``--average``."""
    names = ", ".join(AVERAGES)
    text = f"certify the mean over transforms of each image, of {names}, or several: flip,shifts"
    parser.add_argument("--average", help=text)


def new_parser(command: str) -> Any:
    """Return a parser that raises on errors, with a short help.

    Raises:
        UsageError: jsonargparse is not installed.
    """
    try:
        from jsonargparse import ArgumentParser, DefaultHelpFormatter
    except ImportError as error:
        raise missing_extra("jsonargparse", "train") from error

    class Formatter(DefaultHelpFormatter):
        """Help without empty defaults, and without "required" where there is a default."""

        def _expand_help(self, action: Any) -> str:
            text = super()._expand_help(action)
            text = re.sub(r"(, |\()default: null\)", lambda m: ")" if m[1] == ", " else "", text)
            text = re.sub(r"\(required, ([^()]*(\([^()]*\))?[^()]*default: )", r"(\1", text)
            return text.replace("<class 'Path'>", "path").strip()

    return ArgumentParser(
        prog=f"onelip {command}",
        exit_on_error=False,
        default_env=False,
        allow_abbrev=False,
        formatter_class=Formatter,
    )


def stored_array(option: str, path: str | Path) -> Any:
    """The array of a ``.npy`` file that an option names.

    Raises:
        UsageError: the file cannot be read.
    """
    import numpy as np

    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"--{option}: {path} cannot be read: {reason}") from error


def resumes(arguments: list[str]) -> bool:
    """Check whether a run is resumed, so that there are no settings among the arguments."""
    return any(argument.split("=")[0] == "--resume" for argument in arguments)


def run_parser(command: str, arguments: list[str], extend: Callable[[Any], None]) -> Any:
    """Return the parser of a command that resumes a run or starts one from settings.

    Args:
        command: its name.
        arguments: among which is ``--resume`` or not.
        extend: adds the settings of a new run.
    """
    parser = new_parser(command)
    if resumes(arguments):
        parser.add_argument("--resume", type=Path, required=True, help="run folder to go on with")
    else:
        extend(parser)
        parser.add_argument("--out", type=Path, help="run folder to make")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def add_training_options(parser: Any, stopped: str) -> None:
    """Add the options for the image folder and the time limit.

    Args:
        parser: of a command that trains on images.
        stopped: what ``--max-minutes`` does.
    """
    parser.add_argument("--data", type=Path, help=DATA)
    parser.add_argument("--max_minutes", type=float, help=stopped)


def check_minutes(options: Any) -> None:
    """Refuse a time limit that is not positive.

    Raises:
        UsageError: ``--max-minutes`` is not positive.
    """
    if options.max_minutes is not None and not options.max_minutes > 0:
        raise UsageError(f"--max_minutes must be positive, got {options.max_minutes}")


def settings_of(kind: type[_Settings], options: Any) -> _Settings | None:
    """Return the settings among the options, None if a run is resumed.

    Raises:
        UsageError: no run can have them.
    """
    if "resume" in options:
        return None
    return kind(**{field.name: getattr(options, field.name) for field in dataclasses.fields(kind)})


def bracketed(arguments: list[str], name: str) -> list[str]:
    """Turn ``--eps 0.1,0.2`` into ``--eps=[0.1,0.2]``, since the parser wants a list."""
    pattern = rf"(^|\0)--{name}[\0=]([^[\0]+)"
    joined = re.sub(pattern, rf"\1--{name}=[\2]", "\0".join(arguments))
    return joined.split("\0") if arguments else []


def classification_run(
    command: str, arguments: list[str], extend: Callable[[Any], None]
) -> "tuple[classification.ClassificationFolder, Any]":
    """Return the folder of a trained network, and the options of the command.

    Args:
        command: its name.
        arguments: what was given to it.
        extend: adds its own options.
    """
    parser = new_parser(command)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--data", type=Path, help="place of the data, if it is another now")
    extend(parser)
    options = parser.parse_args(arguments)
    return classification.ClassificationFolder.open(options.run), options
