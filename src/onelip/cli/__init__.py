"""The command line: ``onelip COMMAND ...``, with one module per command."""

from onelip.cli._main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
