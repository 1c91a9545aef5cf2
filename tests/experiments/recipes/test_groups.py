"""Groups of recipes: every row of a published table, and every recipe somewhere."""

import csv
from pathlib import Path

import pytest

from onelip.experiments.recipes import GROUPS, RECIPES

TABLES = Path(__file__).parents[3] / "tables"


def test_every_recipe_is_in_a_group():
    assert {name for group in GROUPS.values() for name in group.recipes} == set(RECIPES)


@pytest.mark.parametrize(
    ("group", "folder"),
    [
        ("bcop-1", "bcop-table-1"),
        ("bcop-2", "bcop-table-2"),
        ("cpl-2", "cpl-table-2"),
        ("cpl-3", "cpl-table-3"),
        ("crm-1", "crm-table-1"),
        ("improved-l2", "improved-l2-table-1"),
    ],
)
def test_rows_of_published_tables(group, folder):
    with (TABLES / folder / "expected.csv").open(newline="") as file:
        named = {row["recipe"] for row in csv.DictReader(file)} - {""}
    assert named & set(RECIPES) <= set(GROUPS[group].recipes)
    assert named & set(RECIPES)
