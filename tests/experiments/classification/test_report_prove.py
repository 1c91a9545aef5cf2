"""Reports that prove themselves: green for what is proved, never for anything else."""
# ruff: noqa: E501  JavaScript

import base64
import json
import random
import re
import shutil
import time
from pathlib import Path

import pytest
import torch

from onelip.checker.page import build
from onelip.cli import main
from onelip.errors import UsageError
from onelip.experiments.classification import find_runs, write_report
from onelip.experiments.classification.report.proof import Checker, Proof
from onelip.experiments.classification.report.subjects import subjects
from tests.experiments.classification.report_runs import train

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
RECORD = Path(__file__).parents[3] / "benchmarks/results/report_mutants.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(tmp_path_factory.mktemp("proved"))


@pytest.fixture(scope="module")
def checker(tmp_path_factory):
    if shutil.which("go") is None:
        pytest.skip("no go here: the checker is not built")
    page = tmp_path_factory.mktemp("checker") / "onelip-check.html"
    build.write(page)
    return page


@pytest.fixture(scope="module")
def report(run, checker):
    return write_report(find_runs([run]), run.parent / "p.html", prove=6, checker=checker)


@pytest.fixture(scope="module")
def page(report):
    """The page in a fresh profile; nothing is asked for, and nothing said on its console."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, said = browser.new_context(offline=True).new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        yield page
        browser.close()
    assert [line for line in said if not line.startswith(("file:", "data:", "blob:"))] == []


def proved(page, report, change: str = "") -> tuple[str, str]:
    """Open the page, change it by a script, and press the button: the verdict, and why."""
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-provable]", state="attached")
    if change:
        page.evaluate(f"() => {{ {change} }}")
    page.click("#prove")
    while not (words := page.locator("#proof-verdict").text_content()):
        time.sleep(0.02)
    return words.split(" ", 1)[0], words + page.locator("#proof-wrong").text_content()


def test_a_report_proves_itself(page, report):
    verdict, words = proved(page, report)
    assert verdict == "PROVED", words
    assert page.locator("#proof-verdict").get_attribute("class") == "valid"
    assert page.locator("#proof-lines li").count() > 4
    assert page.locator("#prove").is_enabled()
    assert page.locator("#proving").is_hidden()
    policy = page.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy


def text_of(selector: str, change: str) -> str:
    return f"const node = document.querySelector({selector!r}); node.textContent = {change};"


def data(change: str) -> str:
    """Change the numbers behind the figures."""
    return (
        "const node = document.getElementById('data'), told = JSON.parse(node.textContent);"
        "const seed = told.subjects[0].seeds[0];"
        "const back = (kind, name) => new kind(Uint8Array.from(atob(seed[name]), (c) => c.charCodeAt(0)).buffer);"
        "const text = (list) => btoa(String.fromCharCode(...new Uint8Array(list.buffer)));"
        f"{change}; node.textContent = JSON.stringify(told);"
    )


def flipped(name: str, place: str) -> str:
    """Change one byte of a file of the bundle."""
    return (
        f"const node = document.getElementById('bundle-{name}'), all = atob(node.textContent).split('');"
        f"const at = {place}; all[at] = String.fromCharCode(all[at].charCodeAt(0) ^ 1);"
        "node.textContent = btoa(all.join(''));"
    )


FALSE = {
    "a share": text_of("#carried tbody td", "'24 of 24'"),
    "a radius of the table": text_of("#carried tbody tr:nth-child(2) th", "'1e-9'"),
    "a bound": text_of("[data-proved-bound]", "'0.5'"),
    "no bound": text_of("[data-proved-bound]", "'NaN'"),
    "a radius": "const dd = [...document.querySelectorAll('.gallery li:not(.wrong) dt')]"
    ".find((dt) => dt.textContent === 'radius').nextSibling; dd.textContent = Number(dd.textContent) + 0.001;",
    "a prediction": "[...document.querySelectorAll('.gallery dt')]"
    ".find((dt) => dt.textContent === 'predicted').nextSibling.textContent = 'x';",
    "a label": text_of(".gallery dd", "'x'"),
    "a second radius": "const dl = document.querySelector('.gallery li:not(.wrong) dl');"
    "dl.insertAdjacentHTML('afterbegin', '<dt>radius</dt><dd>9</dd>');",
    "an image": "const [a, b] = document.querySelectorAll('.gallery > li'); a.querySelector('img').src = b.querySelector('img').src;",
    "another sample": "const heads = document.querySelectorAll('.gallery h3');"
    "[heads[0].textContent, heads[1].textContent] = [heads[1].textContent, heads[0].textContent];",
    "a digest": text_of("#bundle tbody td:last-child", "'0'.repeat(64)"),
    "radii of figures": data(
        "const r = back(Float32Array, 'radius'); told.proof.rows.forEach((row) => { r[row] *= 1.001; }); seed.radius = text(r)"
    ),
    "no radii": data("seed.radius = ''"),
    "predictions of figures": data(
        "const p = back(Uint16Array, 'prediction'); p[told.proof.rows[1]] ^= 1; seed.prediction = text(p)"
    ),
    "fewer samples": data("told.proof.rows.pop()"),
    "the same sample twice": data("told.proof.rows[1] = told.proof.rows[0]"),
    "a weight": flipped("tensors", "all.length - 1000"),
    "a header": flipped("tensors", "20"),
    "a claim": flipped(
        "proof", "node.textContent.length && atob(node.textContent).indexOf('\"bound\"') + 14"
    ),
    "a word": flipped("proof", "atob(node.textContent).indexOf('run of')"),
}


QUICK = {"a share", "a bound", "a radius", "an image", "radii of figures", "a weight", "a word"}


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FALSE],
)
def test_a_page_that_says_anything_else_is_red(name, page, report):
    verdict, words = proved(page, report, FALSE[name])
    assert verdict == "NOT", words
    assert page.locator("#proof-verdict").get_attribute("class") == "invalid"


def test_cancel_and_keyboard(page, report):
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-provable]", state="attached")
    page.locator("#prove").focus()
    page.keyboard.press("Enter")
    page.locator("#proof-cancel").click()
    assert page.locator("#proof-verdict").text_content().startswith("Cancelled")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    with page.expect_download() as saved:
        page.locator("[data-save='proof.json']").click()
    assert json.loads(Path(saved.value.path()).read_text())["format"] == "onelip proof"


def test_what_is_shown_is_at_most_what_is_proved(run, report):
    (subject,) = subjects(find_runs([run]))
    proof = Proof.of(subject, None, 6, 24)
    lowered = proof.applied(subject).radii[0].radius
    stored = subject.radii[0].radius.double()
    assert (lowered <= stored).all()
    assert (lowered[proof.rows] <= proof.radius).all()
    assert torch.allclose(lowered, stored, rtol=1e-4)
    text = report.read_text()
    assert all(name in text for name in ("Save proof.json", "Whose checker is this?"))
    bundle = re.search(r'id="bundle-proof">(.*?)</script>', text, re.DOTALL)[1]
    assert base64.b64decode(bundle) == proof.files["proof.json"]


def test_what_cannot_be_proved_here(run, tmp_path, capsys, monkeypatch):
    def refused(message, *words):
        assert main(["report", *map(str, words)]) == 2
        assert message in capsys.readouterr().err

    shutil.copytree(run, tmp_path / "other")
    refused("for one run", run, tmp_path / "other", "--out", tmp_path / "r.html", "--prove")
    refused("a number of samples above 0", run, "--prove", 0, "--checker", _page(tmp_path))
    refused("is no page that make checker-page wrote", run, "--prove", "--checker", __file__)
    refused("cannot be read", run, "--prove", "--checker", tmp_path)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    refused("no go here", run, "--prove")
    with pytest.raises(UsageError, match="no go here"):
        Checker.found(None)


def _page(folder: Path) -> Path:
    """What is taken for a page with a checker."""
    parts = (
        '<script type="text/plain" id="wasm">AA==</script>',
        '<script type="text/plain" id="worker">',
    )
    text = f'{parts[0]}{parts[1]}x</script><pre id="digest">{"0" * 64}</pre>'
    (folder / "page.html").write_text(text)
    return folder / "page.html"


@pytest.mark.slow
def test_a_thousand_mutants(page, report):
    """No false claim and no changed digest turns green; the counts are stored."""
    draw, counts = random.Random(0), {}
    sizes = {
        name: len(
            base64.b64decode(
                re.search(rf'id="bundle-{name}">(.*?)</script>', report.read_text(), re.DOTALL)[1]
            )
        )
        for name in ("proof", "tensors")
    }
    start = time.perf_counter()
    for _ in range(1000):
        kind = draw.choice(["proof", "tensors", "radius", "digest", "share", "data"])
        if kind in sizes:
            change = flipped(kind, str(draw.randrange(sizes[kind])))
        elif kind == "radius":
            change = (
                "const found = [...document.querySelectorAll('.gallery li:not(.wrong) dt')]"
                f".filter((dt) => dt.textContent === 'radius'); const dd = found[{draw.randrange(99)} % found.length]"
                f".nextSibling; dd.textContent = (Number(dd.textContent) + {draw.uniform(2e-4, 1):.4f}).toFixed(4);"
            )
        elif kind == "digest":
            change = (
                f"const cells = document.querySelectorAll('#bundle td:last-child'), td = cells[{draw.randrange(2)}];"
                f"const at = {draw.randrange(64)}, old = td.textContent;"
                "td.textContent = old.slice(0, at) + (old[at] === '0' ? '1' : '0') + old.slice(at + 1);"
            )
        elif kind == "share":
            change = (
                f"const cells = document.querySelectorAll('#carried td'), td = cells[{draw.randrange(9)} % cells.length];"
                "td.textContent = td.textContent.replace(/^\\d+/, (count) => Number(count) + 1);"
            )
        else:
            factor = 1 + draw.uniform(1e-3, 1)
            change = data(
                "const r = back(Float32Array, 'radius'), some = told.proof.rows.filter((row) => r[row] > 0);"
                f"r[some[{draw.randrange(99)} % some.length]] *= {factor}; seed.radius = text(r)"
            )
        verdict, words = proved(page, report, change)
        counts.setdefault(kind, {}).setdefault(verdict, 0)
        counts[kind][verdict] += 1
        assert verdict == "NOT", (kind, change, words)
    seconds = round(time.perf_counter() - start)
    RECORD.write_text(
        json.dumps({"mutants": 1000, "verdicts": counts, "seconds": seconds}, indent=1) + "\n"
    )
