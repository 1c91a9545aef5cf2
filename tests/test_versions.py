"""What is promised of torch is what was tested, with a stored result."""

import json
import tomllib
import warnings
from pathlib import Path

import pytest
import torch

from onelip.versions import TESTED, warn_of_untested

ROOT = Path(__file__).parents[1]


def test_a_newer_torch_gets_one_warning():
    newer = ".".join(str(int(n) + 1) for n in max(TESTED).split("."))
    with pytest.warns(UserWarning, match=f"this is {newer}.1: run make test-torch") as seen:
        warn_of_untested(f"{newer}.1+cpu".removesuffix("+cpu"))
    assert len(seen) == 1
    with warnings.catch_warnings(action="error"):
        for version in (*TESTED, "2.5.1", torch.__version__, "nonsense"):
            warn_of_untested(version)


def test_the_metadata_admits_no_older_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"torch>={min(TESTED)}" in project["dependencies"]


@pytest.mark.parametrize("version", TESTED)
def test_each_has_a_stored_result(version):
    (file,) = (ROOT / "benchmarks" / "results").glob(f"torch_{version}*.json")
    record = json.loads(file.read_text())
    assert record["torch"].startswith(version)
    assert record["passed"] > 2000
    assert "failed" not in record
    assert "error" not in record
