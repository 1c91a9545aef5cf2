"""Thousands of changed bundles: none with a false claim is VALID, and nothing else happens."""

import collections
import json
import os
import random
import time
from pathlib import Path

import pytest

from onelip.checker import check
from tests.checker.bundles import NETWORKS, write
from tests.checker.mutants import mutate
from tests.checker.truth import false_claims

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "proof_mutants.json"


def _tried(folder: Path, capsys) -> bool:
    """Whether a bundle is VALID; any exception fails the test that asks."""
    status = check.main([str(folder)])
    text = capsys.readouterr().out
    assert ("\nVALID" in text or text.startswith("VALID")) == (status == 0)
    assert status == 0 or text.splitlines()[-1].startswith("INVALID: ")
    return status == 0


def _mutants(count: int, tmp_path: Path, capsys) -> dict[str, list[int]]:
    """Counts of mutants, and of those that are VALID and true, by kind of change."""
    for name in NETWORKS:
        write(name, tmp_path / name)
    found = collections.defaultdict(lambda: [0, 0])
    for seed in range(count):
        rng = random.Random(seed)
        folder = tmp_path / "mutant"
        kind = mutate(tmp_path / rng.choice(list(NETWORKS)), folder, rng)
        found[kind][0] += 1
        if _tried(folder, capsys):
            false = false_claims(folder)
            assert not false, f"seed {seed}, {kind}: VALID, but {false}"
            assert kind != "digest", f"seed {seed}"
            found[kind][1] += 1
    return dict(found)


def test_some_hundred(tmp_path, capsys) -> None:
    found = _mutants(400, tmp_path, capsys)
    assert sum(valid for _, valid in found.values()) > 10  # some changes do no harm


@pytest.mark.slow
def test_ten_thousand(tmp_path, capsys) -> None:
    start = time.perf_counter()
    count = int(os.environ.get("ONELIP_MUTANTS", "10000"))
    found = _mutants(count, tmp_path, capsys)
    rows = [
        {"change": kind, "mutants": tried, "valid and true": valid, "valid and false": 0}
        for kind, (tried, valid) in sorted(found.items())
    ]
    seconds = round(time.perf_counter() - start)
    RECORD.write_text(
        json.dumps({"mutants": count, "seconds": seconds, "tracebacks": 0, "rows": rows}, indent=1)
        + "\n"
    )
