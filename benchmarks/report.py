"""Claim: a report of 10,000 samples and two seeds opens in under a second, in headless Chromium.

The run is a small untrained network on random images of 3 x 32 x 32, certified as any other; its
labels are the network's predictions, but for a tenth, and its curves of 200 epochs are made up.
Opening is from the navigation to the first drawn figure, in a new window each time; a move of the
slider is from the key to the numbers beside it. Needs playwright and Chromium.
"""

import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from harness import save

from onelip.data import LabelledSet
from onelip.experiments.classification import (
    ClassificationFolder,
    build_model,
    certify_run,
    find_runs,
    write_report,
)
from onelip.experiments.recipes import RECIPES

SAMPLES, EPOCHS, TIMES = 10_000, 200, 9


@dataclasses.dataclass
class _Data:
    """Random images as the data of a run."""

    test: LabelledSet
    validation: LabelledSet
    info: Any


def main() -> None:
    opened_by: dict[Path, Any] = {}
    as_opened = mock.patch.object(
        ClassificationFolder, "data", lambda run, _=None: opened_by[run.path]
    )
    with tempfile.TemporaryDirectory() as folder, as_opened:
        runs = [_run(Path(folder) / str(seed), seed, opened_by) for seed in (0, 1)]
        start = time.perf_counter()
        page = write_report(
            find_runs(runs), Path(folder) / "report.html", recipes=RECIPES, say=print
        )
        written = time.perf_counter() - start
        opened, moved = _in_browser(page)
        rows = {
            "samples": SAMPLES,
            "seeds": 2,
            "epochs": EPOCHS,
            "kilobytes": round(page.stat().st_size / 1000, 1),
            "seconds to write": round(written, 2),
            "seconds to open, median": round(statistics.median(opened), 3),
            "seconds to open, slowest": round(max(opened), 3),
            "seconds of a move of the slider, median": round(statistics.median(moved), 4),
        }
    save("report_cpu", [rows])


def _run(path: Path, seed: int, opened_by: dict[Path, Any]) -> Path:
    """Make a certified run; its data stay in memory."""
    network = {"conv_layers": 2, "linear_layers": 1, "channels": 8, "hidden_channels": 8}
    base = RECIPES["digits"]
    recipe = dataclasses.replace(base, dataset="cifar10", seed=seed, network=network, threads=1)
    run = ClassificationFolder.create(recipe, path)
    torch.manual_seed(seed)
    model = build_model(recipe, run.info).eval()
    images = torch.randint(0, 256, (SAMPLES, 3, 32, 32), generator=_generator(), dtype=torch.uint8)
    with torch.no_grad():
        labels = torch.cat([model(part / 255).argmax(1) for part in images.split(500)])
    labels[::10] = (labels[::10] + 1) % 10
    test = LabelledSet(images, labels, 10)
    opened_by[path] = _Data(test, test.subset(torch.arange(100)), run.info)
    run.save_model(model)
    epochs = [
        {"loss": 2 / (1 + e), "held_out_accuracy": 0.5, "seconds": 1.0} for e in range(EPOCHS)
    ]
    run.write({"train": {"complete": True, "epochs": epochs, "seconds": 200.0}})
    certify_run(run)
    return path


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _in_browser(page: Path) -> tuple[list[float], list[float]]:
    """Seconds to open a page, and of moves of its slider."""
    from playwright.sync_api import sync_playwright

    opened, moved = [], []
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for _ in range(TIMES):
            window = browser.new_page()
            start = time.perf_counter()
            window.goto(page.as_uri())
            window.wait_for_selector("#accuracy-plot svg")
            opened.append(time.perf_counter() - start)
            window.focus("#eps")
            for _ in range(5):
                before = window.inner_text("#eps-value")
                start = time.perf_counter()
                window.keyboard.press("ArrowRight")
                assert window.inner_text("#eps-value") != before
                moved.append(time.perf_counter() - start)
            window.close()
        browser.close()
    return opened, moved


if __name__ == "__main__":
    main()
