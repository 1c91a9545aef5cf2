"""Run the contract and export tests on the installed torch, and store what came out.

``make test-torch`` runs this in the project's environment, ``make test-torch TORCH=2.12.1`` in a
new one with that version, which takes gigabytes where there is no CPU build of it.
"""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from onelip.experiments.provenance import environment

TESTS = ("tests/contract", "tests/reading", "tests/test_save.py")


def main() -> int:
    root = Path(__file__).parents[1]
    command = [sys.executable, "-m", "pytest", "-n", "2", "--tb=line", *TESTS]
    finished = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    last = finished.stdout.strip().splitlines()[-1]
    counts = {
        word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|error)", last)
    }
    version = torch.__version__.partition("+")[0]
    record = {
        "torch": torch.__version__,
        "tests": list(TESTS),
        **counts,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **environment(),
    }
    file = root / "benchmarks" / "results" / f"torch_{version}.json"
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"torch {version}: {last}\nrecord {file}")
    return finished.returncode


if __name__ == "__main__":
    sys.exit(main())
