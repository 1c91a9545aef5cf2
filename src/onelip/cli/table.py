"""``onelip table``: a published table beside our stored runs."""

from pathlib import Path
from typing import Any

from onelip.cli.arguments import new_parser
from onelip.experiments.tables.published import read_table
from onelip.experiments.tables.text import table_text


def run(arguments: list[str]) -> None:
    """Print a table."""
    options = _parsed(arguments)
    stored = read_table(options.name, options.tables)
    print(stored.as_json() if options.json else table_text(stored))


def _parsed(arguments: list[str]) -> Any:
    parser = new_parser("table")
    parser.add_argument("name", nargs="?", help="folder of the table; without one, lists them")
    parser.add_argument("--tables", type=Path, help="folder of the tables")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)
