"""A report that proves its own numbers: green as written, red with anything changed."""

import json
import os
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import pytest

from onelip.cli import main
from onelip.errors import UsageError
from onelip.experiments.classification import find_runs, write_report
from onelip.experiments.classification.report import proof
from tests.experiments.classification.report_runs import altered, train

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
RECORD = Path(__file__).parents[3] / "benchmarks/results/report_mutants.json"

MUTATE = Path(__file__).with_name("report_mutants.js").read_text()
KINDS = [
    "weights",
    "claims",
    "bound",
    "radius",
    "prediction",
    "shownBound",
    "tableBound",
    "shownRadius",
    "shownClass",
    "galleryRadius",
    "galleryClass",
    "count",
    "digest",
    "curveRadius",
    "curveClass",
    "number",
    "image",
    "removed",
    "twice",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("proof"))


@pytest.fixture(scope="module")
def file(run):
    if shutil.which("go") is None:
        pytest.skip("no go here: no checker for the page")
    out = run.parent / "proved.html"
    assert main(["report", str(run), "--prove", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def page(file):
    """The page in a fresh profile without a network; nothing may be asked for."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(offline=True)
        page = context.new_page()
        page.set_default_timeout(120_000)
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(file.as_uri())
        context.on("request", lambda request: said.append(request.url))
        yield page
        browser.close()
        own = ("blob:", "data:", file.as_uri())
        assert [text for text in said if not text.startswith(own)] == []


def verdict(page) -> str:
    page.click("#proof-check")
    page.wait_for_selector("html[data-proof]", state="attached")
    return page.get_attribute("html", "data-proof")


def mutated(page, kind: str, at: float, by: float) -> str:
    page.evaluate(MUTATE, [kind, at, by])
    said = verdict(page)
    page.evaluate("() => undo()")
    return said


def test_as_written_it_is_green_and_one_number_makes_it_red(page) -> None:
    """The walk of docs/check-a-claim.md."""
    assert verdict(page) == "valid", page.inner_text("#proof")
    assert page.inner_text("#proof-verdict strong") == "PROVED"
    assert "24 carried samples" in page.inner_text("#proof-verdict")
    assert mutated(page, "galleryRadius", 0.5, 0.5) == "invalid"
    assert "the radius" in page.inner_text("#proof-wrong")
    assert verdict(page) == "valid"


def test_some_changes_are_red(page) -> None:
    """Of each kind with ``-m slow``."""
    draw = random.Random(1)
    said = {kind: mutated(page, kind, draw.random(), draw.random()) for kind in KINDS[:9]}
    assert said == dict.fromkeys(said, "invalid")
    assert verdict(page) == "valid"


def test_cancel_keyboard_and_narrow(page) -> None:
    page.set_viewport_size({"width": 340, "height": 700})
    assert page.evaluate("() => document.documentElement.scrollWidth") == 340
    page.focus("#proof-check")
    page.evaluate("() => { Worker.prototype.postMessage = () => {}; }")  # one that never ends
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#proof-now').textContent !== ''")
    page.click("#proof-cancel")
    assert page.get_attribute("html", "data-proof") == "none"
    assert page.inner_text("#proof-verdict strong") == "Cancelled"
    assert page.evaluate("() => document.activeElement.id") == "proof-check"
    page.evaluate("() => { delete Worker.prototype.postMessage; }")
    page.reload()
    assert verdict(page) == "valid"


def test_what_is_saved_is_the_bundle(page, tmp_path) -> None:
    from onelip.checker import check

    for name in ("proof.json", "tensors.safetensors"):
        with page.expect_download() as got:
            page.click(f"[data-save='{name}']")
        got.value.save_as(tmp_path / name)
    check.check(tmp_path, say=lambda _: None)


def test_without_go_one_line_says_the_way_out(run, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(proof.shutil, "which", lambda _: None)
    assert main(["report", str(run), "--prove", "--out", str(tmp_path / "a.html")]) == 2
    assert "needs Go" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_several_runs_are_refused(run, tmp_path) -> None:
    other = altered(run, tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match="a single run"):
        write_report(find_runs([run, other]), tmp_path / "a.html", prove=True)


@pytest.mark.slow
def test_a_thousand_mutants(page, file) -> None:
    """None is green; ONELIP_RECORD=1 writes the record."""
    draw, said, green = random.Random(0), Counter(), []
    begun = time.perf_counter()
    for number in range(1000):
        kind, at, by = KINDS[number % len(KINDS)], draw.random(), draw.random()
        result = mutated(page, kind, at, by)
        said[kind, result] += 1
        if result != "invalid":
            green.append((kind, at, by, result))
    seconds = time.perf_counter() - begun
    assert verdict(page) == "valid"
    if os.environ.get("ONELIP_RECORD"):
        content = {
            "mutants": 1000,
            "green": sum(row[3] == "valid" for row in green),
            "no verdict": sum(row[3] == "none" for row in green),
            "by kind": {kind: said[kind, "invalid"] for kind in KINDS},
            "seconds": round(seconds, 1),
            "bytes of the page": file.stat().st_size,
        }
        RECORD.write_text(json.dumps(content, indent=1) + "\n")
    assert green == []
