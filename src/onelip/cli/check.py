"""``onelip check``: check a bundle, by a program that shares nothing with its writer."""

import argparse
from pathlib import Path

from onelip.checker import check
from onelip.errors import UsageError


class _Parser(argparse.ArgumentParser):
    """A parser that raises, and needs none of the extras: checking has no dependencies."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Raise instead of leaving."""
        raise UsageError(f"{message}; see onelip check --help")


def run(arguments: list[str]) -> int:
    """Check a bundle; exit status 0 for VALID, 1 for INVALID.

    With ``--files``, compare the files of the network in it with the proof, too: there onelip's
    readers are trusted.
    """
    parser = _Parser("onelip check", description=check.__doc__.partition("\n")[0])
    parser.add_argument("bundle", help="folder that onelip prove wrote")
    files = "read the files of the network in it, and compare them with the proof"
    parser.add_argument("--files", action="store_true", help=files)
    parser.add_argument("--work", default="1", help="times as much work as usual that it may take")
    options = parser.parse_args(arguments)
    status = check.main([options.bundle, options.work], "onelip check")
    if status or not options.files:
        return status
    from onelip.proofs.files import compared

    for name, reason in compared(Path(options.bundle)).items():
        print(f"{name}: {reason or 'onelip reads the network of the proof from it'}")
        status = status or int(bool(reason))
    return status
