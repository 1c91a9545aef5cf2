"""The checker in Go, built once."""

import shutil
from pathlib import Path

import pytest

from tests.checker.programs import call_go


@pytest.fixture(scope="session")
def go(tmp_path_factory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("no go here: the checker in Go is not tried")
    program = tmp_path_factory.mktemp("go") / "onelip-check"
    call_go("build", "-o", str(program), ".")
    return program
