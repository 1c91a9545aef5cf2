"""Claim: a report proves its own numbers in a browser in seconds.

``python report_proof.py RUN...``: each run is reported with ``--prove``, and its page is opened
and pressed once in headless Chromium. The same bundle is checked by the program in Go
(``make checker``).
"""

import base64
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checker_page import CHROMIUM, of_the_program, used
from harness import save
from playwright.sync_api import sync_playwright

from onelip.experiments.classification import find_runs, write_report

NAMES = {"proof.json": "proof-json", "tensors.safetensors": "proof-tensors"}


def rows(runs: list[Path]) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as place, sync_playwright() as tools:
        for run in runs:
            file = write_report(find_runs([run]), Path(place) / "report.html", prove=True)
            bundle = Path(place) / run.name
            bundle.mkdir()
            text = file.read_text()
            for name, mark in NAMES.items():
                found = re.search(f'id="{mark}">([^<]*)<', text)
                assert found is not None
                (bundle / name).write_bytes(base64.b64decode(found[1]))
            native, page = of_the_program(bundle), of_the_page(file, tools)
            yield {
                "run": run.name,
                "recipe": find_runs([run])[0].folder.recipe.name,
                "samples": text.count('data-proof-row="'),
                "kilobytes_of_bundle": sum(f.stat().st_size for f in bundle.iterdir()) // 1000,
                "kilobytes_of_page": file.stat().st_size // 1000,
                "program": native,
                "page": page,
                "ratio_of_seconds": round(page["seconds"] / native["seconds"], 1),
            }


def of_the_page(file: Path, tools: Any) -> dict[str, Any]:
    browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    page = browser.new_page()
    page.set_default_timeout(1e6)
    page.goto(file.as_uri())
    before, start = used(), time.perf_counter()
    page.click("#proof-check")
    page.wait_for_selector("html[data-proof]", state="attached")
    seconds, after = time.perf_counter() - start, used()
    if page.get_attribute("html", "data-proof") != "valid":
        raise RuntimeError(page.inner_text("#proof"))
    version = browser.version
    browser.close()
    return {
        "seconds": round(seconds, 2),
        "processor_seconds": round(after[0] - before[0], 2),
        "megabytes_at_most": round(after[1]),
        "browser": version,
    }


if __name__ == "__main__":
    save("report_proof", rows([Path(run) for run in sys.argv[1:]]))
