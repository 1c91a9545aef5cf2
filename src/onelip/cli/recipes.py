"""``onelip recipes``: what can be trained."""

from collections.abc import Iterable

from onelip.cli.arguments import new_parser
from onelip.errors import UsageError
from onelip.experiments.recipes import GROUPS, RECIPES


def run(arguments: list[str]) -> None:
    """Print the groups, the recipes of one of them, or all."""
    if not arguments:
        _print_groups()
        return
    parser = new_parser("recipes")
    parser.add_argument("--table", help=f"list a group: {', '.join(GROUPS)}")
    parser.add_argument("--all", action="store_true", help="list every recipe")
    options = parser.parse_args(arguments)
    if options.table is not None and options.table not in GROUPS:
        raise UsageError(f"no group {options.table!r}; known: {', '.join(GROUPS)}")
    _print_recipes(RECIPES if options.table is None else GROUPS[options.table].recipes)


def _print_groups() -> None:
    for name, group in GROUPS.items():
        print(f"{name:12} {len(group.recipes):3}  {group.about}")
    print(
        "\nonelip recipes --table bcop-1 lists a group, --all every recipe; to train one:\n"
        "onelip train bcop-small-mnist-bcop"
    )


def _print_recipes(names: Iterable[str]) -> None:
    for name in names:
        print(f"{name:24} {RECIPES[name].about}")
