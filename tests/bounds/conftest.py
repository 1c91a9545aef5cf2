"""Bounds stop after counted seconds, so that no test depends on how fast a machine is."""

import pytest


@pytest.fixture(autouse=True)
def _clock(clock):
    """Every test here has it."""
