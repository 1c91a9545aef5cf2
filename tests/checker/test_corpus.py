"""The stored bundles, each with a verdict and a reason, and what the checkers say of them."""

import json
import re
from pathlib import Path

import pytest

from tests.checker.corpus.__main__ import CLASSES, FOLDER, TABLE, files
from tests.checker.programs import python_verdict, verdict
from tests.checker.truth import false_claims

ROWS = json.loads((FOLDER / TABLE).read_text())["bundles"]
LARGEST = 800_000  # bytes of the whole

PYTHON = {
    "json": "JSON that cannot be read|twice in an object",
    "work": "more work than is allowed",
    "radius": "the radius against",
    "digest": "another digest|no file|files are asked",
    "tensors": "a file of tensors|gap, overlap or cut|another size|bytes after|unknown type",
    "number": "is no number like|is no number of float64|infinite or NaN|is no float(32|64), or",
    "claim": "norm is larger than claimed|constant may be larger than claimed",
    "kind": "unknown (map|kind|witness|head|method|of)|nothing is known of|no method is known",
    "schema": "unknown or missing|an object with|a list of (blocks|numbers|linear maps) is asked"
    "|no number from|another format or version|unknown numbers or sums",
    "fit": "goes in|other numbers or axes|one number a channel|an index is out of range"
    "|empty or too large|too small for the kernel|a sum of|too many outputs|samples of|one radius"
    "|no tensor|above the image|groups do not divide|for each pair|are >= 0|the adjoint of"
    "|a step (has|needs)|at the end|for each block|plain layers|not skew|no square map"
    "|of two matrices|does not divide|too many frequencies|of other shapes|have to be equal"
    "|as many rays|angle a pair|angle is too large|corners of each pair|not in order"
    "|fit each other",
}
"""What each class of reasons is in the words of check.py; the first that is found counts."""

GO = {
    "json": "JSON|goes on after its end|is not UTF-8",
    "work": "more work than is allowed",
    "radius": "its radius is not shown",
    "digest": "another digest|is not a file's name|no digest of|no file",
    "tensors": "the tensors' (file|header) is|unknown type|another size than"
    "|^tensor .* out of range|gap or overlap|bytes after",
    "number": "not a number >= 0 in hexadecimal|not finite|the level's format does not have",
    "claim": "not shown to be at most|larger than the norm|more often than|the norm is below"
    "|the bound is below|the form|the curvature of",
    "kind": "of an unknown kind|an unknown (activation|witness)|is unknown|is not a convolution"
    "|level float does not know",
    "fit": "broadcast|window|groups of|no tensor|not an image|the bias does|a bias where"
    "|does not fit|another shape|not a matrix|is not a shape|entries|do not fit|an index"
    "|whole numbers|padding|four axes|the index|is not what"
    "|larger than the image|for each|another number|outputs|in (a|one) matrix|not one (map|matrix)"
    "|neither a matrix|does not keep|not skew|not square|not centred|negative|does not divide"
    "|is not one matrix|matrix at the end|floating|too long a side|gives another shape|would jump"
    "|the (knots|bends)|knots, slopes",
    "schema": "has an unknown field|has no|is not a|is out of range|is neither|another format"
    "|another level|the level: ",
}
"""The same for the checker in Go."""


def class_of(reason: str, words: dict[str, str]) -> str:
    """The class of a reason; the reason itself where none is found."""
    return next((name for name, pattern in words.items() if re.search(pattern, reason)), reason)


def test_the_script_makes_what_is_stored() -> None:
    """Byte for byte: after a change, ``python -m tests.checker.corpus`` writes it anew."""
    made = files()
    stored = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file()}
    assert stored == set(made)
    assert [path for path, data in made.items() if (FOLDER / path).read_bytes() != data] == []
    assert sum(map(len, made.values())) < LARGEST


def test_each_class_of_reasons_is_there() -> None:
    assert {reason for row in ROWS for reason in row["reasons"]} == set(CLASSES)
    assert all(bool(row["reasons"]) == (row["verdict"] == "INVALID") for row in ROWS)


def wrong(said, words: dict[str, str]) -> list[tuple[str, str]]:
    """Bundles of which a checker says something else, and what."""
    found = []
    for row in ROWS:
        reason = said(FOLDER / row["bundle"]).removeprefix("INVALID: ")
        right = class_of(reason, words) in row["reasons"] if reason else not row["reasons"]
        found += [] if right else [(row["bundle"], reason)]
    return found


def test_the_checker_in_python() -> None:
    assert wrong(python_verdict, PYTHON) == []


def test_the_checker_in_go(go: Path) -> None:
    assert wrong(lambda folder: verdict(go, folder), GO) == []


@pytest.mark.parametrize("row", [row for row in ROWS if not row["reasons"]], ids=str)
def test_what_is_valid_is_true(row) -> None:
    """By float64, which cannot say it of weights near the ends of its range."""
    if row["bundle"].removeprefix("valid/") in ("nothing", "subnormal", "tiny", "huge"):
        pytest.skip("float64 cannot tell")
    assert false_claims(FOLDER / row["bundle"]) == []
