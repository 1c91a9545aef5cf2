"""The page of a report in a browser: the slider, the keyboard, schemes, sizes and paper."""

import json
import re
import shutil
import time
from pathlib import Path

import pytest
import safetensors.torch

from onelip.experiments.classification import find_runs, write_report
from onelip.experiments.recipes import RECIPES
from tests.experiments.classification.report_runs import altered, train

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as tools:
        found = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, browser):
    return train(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page_of_one(run):
    return write_report(find_runs([run]), run.parent / "one.html", recipes=RECIPES)


@pytest.fixture(scope="module")
def page_of_three(run):
    folders = [run, altered(run, run.parent / "one", seed=1)]
    other = altered(run, run.parent / "other", seed=2)
    record = json.loads((other / "metrics.json").read_text())
    record["recipe"]["lr"] = 0.5
    (other / "metrics.json").write_text(json.dumps(record))
    return write_report(find_runs([*folders, other]), run.parent / "three.html")


@pytest.fixture
def opened(browser):
    """Open a page in a window of its own; nothing may be said on its console."""
    said, contexts = [], []

    def opened(file, width=1000, height=800, scheme="light"):
        size = {"width": width, "height": height}
        context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: requested(request.url))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        start = time.perf_counter()
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        page.wait_for_selector("#accuracy-plot svg")
        print(f"\nopened in {time.perf_counter() - start:.2f} s")
        return page

    def requested(url):
        if not url.startswith(("file:", "data:")):
            said.append(url)

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def readout(page):
    """The cells of each row beside the slider, and eps."""
    rows = page.locator("#readout tbody tr").all()
    cells = [row.locator("th, td").all_inner_texts() for row in rows]
    return page.locator("#eps-value").inner_text(), cells


def down(count, total):
    return f"{10000 * count // total / 100:.2f}"


def test_the_slider_says_what_is_proved(run, page_of_one, opened):
    page = opened(page_of_one)
    stored = safetensors.torch.load_file(run / "certificates.safetensors")
    record = json.loads((run / "metrics.json").read_text())
    attack = next(iter(record["attack"].values()))
    right = stored["prediction"] == stored["labels"]
    data = json.loads(page.locator("#data").text_content())
    page.locator("#eps").focus()
    assert page.evaluate("document.activeElement.id") == "eps"
    for key, moves in (("Home", 1), ("ArrowRight", 7), ("PageUp", 3), ("ArrowLeft", 2), ("End", 1)):
        for _ in range(moves):
            page.keyboard.press(key)
        place = int(page.locator("#eps").input_value())
        eps, text = data["grid"][place], data["texts"][place]
        said, [[name, certified, attacked, clean]] = readout(page)
        assert said == text
        assert page.locator("#eps").get_attribute("aria-valuetext") == f"eps {text}"
        proved = int((right & (stored["radius"] > eps)).sum())
        assert (name.strip(), certified) == ("digits", down(proved, len(right)))
        assert clean == down(int(right.sum()), len(right))
        shares = {0.0: attack["clean"]} | {row["eps"]: row["attacked"] for row in attack["eps"]}
        below = max(at for at in shares if at <= eps)
        share = down(round(shares[below] * attack["samples"]), attack["samples"])
        assert attacked.split() == (
            [share] if below == eps else ["≤", share, "attacked", "at", f"{below:g}"]
        )
        live = page.locator("td.live").all_inner_texts()
        for label, cell in enumerate(live):
            of_class = stored["labels"] == label
            found = int((right & of_class & (stored["radius"] > eps)).sum())
            assert cell == down(found, int(of_class.sum()))
        page.wait_for_function("t => document.querySelector('#spoken').textContent.includes(t)",
                               arg=f"At eps {text}: certified {certified} %")  # fmt: skip


def test_buttons_and_pointer_move_it(page_of_one, opened):
    page = opened(page_of_one)
    for text in ("0.1", "0.3", "0.5"):
        page.locator(".jumps button", has_text=re.compile(f"^{re.escape(text)}$")).press("Enter")
        assert readout(page)[0] == text
    box = page.locator("#accuracy-plot").bounding_box()
    page.mouse.click(box["x"] + 46, box["y"] + 50)
    assert float(readout(page)[0]) < 0.01


def test_hostile_names_make_no_elements(page_of_one, opened):
    page = opened(page_of_one)
    assert page.evaluate("document.scripts.length") == 2
    assert page.locator("img[onerror]").count() == 0
    assert page.get_by_text("</script><script>alert(1)</script>").count() > 0


def test_runs_side_by_side(page_of_three, opened):
    page = opened(page_of_three)
    data = json.loads(page.locator("#data").text_content())
    assert page.locator("#accuracy-plot .curve").count() == 2
    assert page.locator("#accuracy-plot .band").count() == 1
    assert page.locator("#readout tbody tr").count() == 2
    assert page.locator("#training-plots svg").count() == len(data["subjects"][0]["training"])
    both = [row for row in readout(page)[1] if "±" in row[1]]
    assert len(both) == 1


@pytest.mark.parametrize("width", [360, 700, 1400])
def test_nothing_sticks_out_of_a_screen(page_of_three, opened, width):
    page = opened(page_of_three, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = page.locator("#accuracy-plot svg").bounding_box()
    assert 0.6 * min(width, 1024) < drawn["width"] < width
    page.set_viewport_size({"width": 500, "height": 800})
    page.wait_for_function("document.querySelector('#accuracy-plot svg').clientWidth < 500")


def contrast(page, selector):
    """Contrast of a text to the card behind it, as WCAG counts it."""
    colors = page.evaluate(
        "s => [getComputedStyle(document.querySelector(s)).color,"
        " getComputedStyle(document.querySelector('section')).backgroundColor]",
        selector,
    )
    lights = []
    for color in colors:
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_schemes_are_legible(page_of_three, opened, scheme):
    page = opened(page_of_three, scheme=scheme)
    for selector in ("h2", ".note", "td.certified", "td small", ".c0", ".c1", "nav a"):
        assert contrast(page, selector) > 4.5, selector
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) < 60) == (scheme == "dark")


def test_paper_shows_all_and_no_slider(page_of_three, opened):
    page = opened(page_of_three, scheme="dark")
    assert page.locator("details:not([open])").count() > 0
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("#eps").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0
    assert page.pdf(format="A4")[:5] == b"%PDF-"


def test_the_keyboard_reaches_all_and_shows_where_it_is(page_of_one, opened):
    page = opened(page_of_one)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        style = "getComputedStyle(document.activeElement).outlineStyle"
        assert (
            page.evaluate(f"document.activeElement === document.body ? 'solid' : {style}") != "none"
        )
    assert {"eps", "BUTTON", "SUMMARY", "A"} <= reached


def test_ten_thousand_samples_open(run, tmp_path, opened):
    many = altered(run, tmp_path / "many", seed=3, samples=10_000)
    page = opened(write_report(find_runs([many]), tmp_path / "many.html"))
    assert readout(page)[1][0][1]
