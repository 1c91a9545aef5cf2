"""The page of names: each public class of the other libraries is on it, and ours exist."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from torch import nn

import onelip

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text()
CELLS = re.compile(r"^\| (.*?) \|(.*)$", re.MULTILINE)


def section(title):
    """The part of the page under a heading, up to the next of its level."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def public(package):
    """Capitalised names that the modules of a package define."""
    root = importlib.import_module(package)
    found = set()
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        try:
            members = vars(importlib.import_module(module.name))
        except ImportError:  # orthogonium.legacy needs packages that are not asked for
            assert ".legacy" in module.name
            continue
        for name, member in members.items():
            own = getattr(member, "__module__", None) == module.name
            if own and callable(member) and name[0].isupper():
                found.add(name)
    return found


@pytest.mark.parametrize(
    ("title", "package"),
    [("From deel-torchlip", "deel.torchlip"), ("From orthogonium", "orthogonium")],
)
def test_every_name_is_on_the_page(title, package):
    pytest.importorskip(package)
    listed = [name for row in CELLS.findall(section(title)) for name in names(row[0])]
    assert len(listed) == len(set(listed))
    assert set(listed) == public(package)


def test_a_missing_name_is_seen():
    pytest.importorskip("deel.torchlip")
    without = section("From deel-torchlip").replace("| `GroupSort2` |", "| |")
    listed = {name for row in CELLS.findall(without) for name in names(row[0])}
    assert public("deel.torchlip") - listed == {"GroupSort2"}


@pytest.mark.parametrize(
    "title", ["From deel-torchlip", "From orthogonium", "From `torch.nn.utils`"]
)
def test_our_names_exist_and_reasons_are_given(title):
    with_ours, *rest = section(title).split("\n### ")
    rows = CELLS.findall(with_ours)
    assert rows
    for theirs, others in rows:
        for name in names(others.split("|")[0]):
            place = nn if name.startswith("nn.") else onelip
            for part in name.removeprefix("nn.").split("."):
                place = getattr(place, part)
        if names(theirs):
            assert names(others.split("|")[0]), theirs
    for part in rest:
        for theirs, why in CELLS.findall(part):
            assert not names(theirs) or len(why.strip(" |")) > 10, theirs
