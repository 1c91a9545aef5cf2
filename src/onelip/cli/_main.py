"""Entry point, which imports only the module of the command that was asked for.

Bad input ends in one line on standard error and exit status 2.
"""

import argparse
import inspect
import os
import re
import sys
from importlib import import_module, metadata

from onelip.errors import OnelipError, UsageError

COMMANDS = (
    "train",
    "sweep",
    "certify",
    "attack",
    "predict",
    "export",
    "bound",
    "prove",
    "check",
    "plot",
    "report",
    "wgan",
    "runs",
    "table",
    "transport",
    "recipes",
    "ceiling",
)
"""Each is a module of this package with a function ``run``."""

_OF_A_RECIPE = ("train", "sweep")

USAGE = """usage: onelip COMMAND [ARGUMENTS]

  train RECIPE [--field value ...]   train, certify, attack and plot; --help lists the fields
  train --resume RUN                 go on with a run that was stopped
  sweep RECIPE --grid FIELD=VALUES   many runs; the same command goes on with what is not finished
  certify RUN                        certified radii of every test image
  attack RUN                         accuracy under attack, below which no certificate may lie
  predict RUN FILE [FILE ...]        classes and certified radii of images and arrays
  export RUN -o FILE                 the network as .onnx, .pt2 or .safetensors; --with-radius
  bound FILE                         proved Lipschitz bounds of a run, a .pt2 or an ONNX file
  prove RUN | FILE -o BUNDLE         network, constants and radii, for others to check
  check BUNDLE                       check them: VALID, or INVALID and what fails
  plot RUN [RUN ...]                 accuracy against eps; --singular-values draws those of a run
  report RUN [RUN ...]               one page of runs, --out report.html, that opens anywhere
  wgan DATASET | --resume RUN        a generator of images against a critic that is proved
  runs [FOLDER ...]                  list, filter, sort and compare runs
  table RUN [RUN ...] | NAME         means over seeds; or a published table beside our runs
  transport P Q                      a lower bound of the Wasserstein-1 distance of two samples
  transport --task NAME              the same where the distance is known
  transport --resume RUN             go on with a run that was stopped
  recipes [--table GROUP | --all]    what can be trained
  ceiling DATASET --eps RADII        certified accuracy that no classifier exceeds there

RECIPE is a name, a YAML file, or file.py:NAME. --data PLACE is your own: a folder of images by
class, an .npz, .csv or .parquet file, hub:OWNER/NAME; or a folder with a published set in the hub's
layout, which is downloaded otherwise."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command.

    Exit status 0, 1 for a bundle that does not hold, 2 after an error that the user can mend, 130
    after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help", "--version"):
        print(USAGE if command != "--version" else metadata.version("onelip"))
        return 0
    status = 0
    try:
        status = _run(command, rest)
        sys.stdout.flush()
    except OnelipError as error:
        print(f"onelip: {_one_line(error)}", file=sys.stderr)
        return 2
    except argparse.ArgumentError as error:
        print(
            f"onelip: {_one_line(error)}; see onelip {_place(command, rest)} --help",
            file=sys.stderr,
        )
        return 2
    except BrokenPipeError:  # the reader, as in `onelip table NAME | head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"onelip: {error.filename or 'disk'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"onelip: interrupted{error}", file=sys.stderr)
        return 130
    return status


def _run(command: str, arguments: list[str]) -> int:
    if command not in COMMANDS:
        raise UsageError(f"no command {command!r}; known: {', '.join(COMMANDS)}")
    return import_module(f"onelip.cli.{command}").run(_underscored(arguments)) or 0


def _place(command: str, arguments: list[str]) -> str:
    """Return the command, and the recipe that its options depend on."""
    recipe = [
        word for word in arguments[:1] if command in _OF_A_RECIPE and not word.startswith("-")
    ]
    return " ".join([command, *recipe])


def _underscored(arguments: list[str]) -> list[str]:
    """Rename ``--max-minutes`` to ``--max_minutes``."""
    return [
        re.sub(r"^--[a-z][^=]*", lambda match: "--" + match[0][2:].replace("-", "_"), argument)
        for argument in arguments
    ]


def _one_line(error: Exception) -> str:
    return " ".join(inspect.cleandoc(str(error)).split())
