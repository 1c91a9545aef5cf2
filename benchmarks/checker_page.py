"""Claim: in a browser a dense network of MNIST is checked within a minute, in less than 1 GB.

Networks of untrained weights are proved with random images, and checked by the program in Go and
by the same source on the page (``make checker checker-page``), on one core each. Seconds of the
processor are what is compared: a machine that does other things takes longer by the clock.
"""

import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from harness import save
from playwright.sync_api import sync_playwright

from onelip import prove
from onelip.experiments.classification.build import build_model
from onelip.experiments.recipes import RECIPES

BUILD = Path(__file__).parents[1] / "build"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
NETWORKS = ("mnist", "bcop-fc3-mnist", "cpl-mnist")
IMAGES = 100


def main() -> None:
    os.sched_setaffinity(0, {0})
    save("checker_page", rows())


def rows() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as place, sync_playwright() as tools:
        for name in NETWORKS:
            torch.manual_seed(0)
            bundle = Path(place) / name
            prove(build_model(RECIPES[name]).eval(), bundle, torch.rand(IMAGES, 1, 28, 28))
            size = sum(file.stat().st_size for file in bundle.iterdir())
            native, page = of_the_program(bundle), of_the_page(bundle, tools)
            ratio = page["processor_seconds"] / native["processor_seconds"]
            yield {
                "network": name,
                "samples": IMAGES,
                "megabytes": round(size / 1e6, 1),
                "program": native,
                "page": page,
                "ratio_of_processor_seconds": round(ratio, 2),
            }


def of_the_program(bundle: Path) -> dict[str, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([BUILD / "onelip-check", bundle], check=True, capture_output=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(after.ru_utime - before.ru_utime, 2),
    }


def of_the_page(bundle: Path, tools: Any) -> dict[str, Any]:
    """From the choice of the folder to the verdict; all processes that draw pages are counted."""
    browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    page = browser.new_page()
    page.set_default_timeout(1e6)
    page.goto((BUILD / "onelip-check.html").as_uri())
    before, start = used(), time.perf_counter()
    page.set_input_files("#folder", bundle)
    page.wait_for_selector("#verdict:not(:empty)")
    seconds, after = time.perf_counter() - start, used()
    verdict = page.inner_text("#verdict strong")
    browser.close()
    if verdict != "VALID":
        raise RuntimeError(f"the page says {verdict}")
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(after[0] - before[0], 2),
        "megabytes_at_most": round(after[1]),
        "browser": browser.version,
    }


def used() -> tuple[float, float]:
    """Processor seconds and the largest memory, in MB, of the browser's processes of pages."""
    seconds, memory = 0.0, 0.0
    for process in descendants(os.getpid()):
        folder = Path("/proc") / str(process)
        try:
            if b"--type=renderer" not in (folder / "cmdline").read_bytes():
                continue
            times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            status = (folder / "status").read_text()
        except OSError:  # it has ended
            continue
        seconds += int(times[11]) / os.sysconf("SC_CLK_TCK")
        memory = max(memory, int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6)
    return seconds, memory


def descendants(process: int) -> Iterator[int]:
    for task in (Path("/proc") / str(process) / "task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield int(child)
            yield from descendants(int(child))


if __name__ == "__main__":
    main()
