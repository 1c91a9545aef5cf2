"""Run the five applications of ``examples/``, and store what they measure and their seconds.

Each asserts its theorem on the way, so that a stored row has passed it. Figures go to
``docs/figures``.

    python applications.py [NAME ...]    # these alone; the rows of the others stay
"""

import json
import math
import runpy
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
from harness import RESULTS, save
from torch import Tensor

ROOT = Path(__file__).parent.parent
NAMES = ("denoiser", "monotone", "distance_field", "invertible", "conformal")


def plain(value: Any) -> Any:
    """Return what JSON takes of a result: no tensors, None for what is not finite."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items() if not isinstance(v, Tensor)}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows(wanted: list[str]) -> Iterator[dict[str, Any]]:
    """Run applications with their own settings; stored rows of those that are not wanted."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    file = RESULTS / "applications.json"
    stored = json.loads(file.read_text())["rows"] if file.exists() else []
    for name in NAMES:
        kept = [row for row in stored if row["application"] == name]
        if kept and wanted and name not in wanted:
            yield kept[0]
            continue
        example = runpy.run_path(str(ROOT / "examples" / f"plot_{name}.py"))
        start, processor = time.perf_counter(), time.process_time()
        found = example["run"]()
        seconds = {
            "seconds": round(time.perf_counter() - start, 1),
            "processor_seconds": round(time.process_time() - processor, 1),
        }
        if "draw" in example:
            example["draw"](found)
            figure = ROOT / "docs" / "figures" / f"{name.replace('_', '-')}.png"
            pyplot.savefig(figure, dpi=100)
            pyplot.close()
        yield {"application": name, **seconds, **plain(found)}


if __name__ == "__main__":
    save("applications", rows(sys.argv[1:]))
