"""A part of the fuzz of every bound (``benchmarks/fuzz.py``), whose control has to fail."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_three_hundred_networks_against_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import fuzz

    kinds, *rows = fuzz.rows(300)
    assert len(kinds) == 6
    *methods, control = rows
    assert [row["method"] for row in methods if row["below"]] == []
    assert control["method"] == fuzz.CONTROL
    assert control["below"] >= 0.99 * control["networks"] > 50
