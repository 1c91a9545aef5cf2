"""The checker in Go as a page: what it says in a browser, and that it asks for nothing."""

import base64
import functools
import gzip
import hashlib
import json
import re
import shutil
import socket
import stat
import zipfile
from pathlib import Path

import pytest

from onelip.checker.page import build
from tests.checker.corpus.__main__ import FOLDER
from tests.checker.programs import verdict
from tests.checker.test_corpus import GO, ROWS, class_of

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
REPORT_CSS = Path(build.HERE).parents[1] / "experiments/classification/report/page.css"
SECONDS = 120_000  # milliseconds that a busy machine may take
ENDED = "#verdict:not(:empty)"
VALID = FOLDER / "valid" / "map-dense"


@pytest.fixture(scope="session")
def html(tmp_path_factory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("no go here: the page is not built")
    target = tmp_path_factory.mktemp("page") / "onelip-check.html"
    build.main(target)
    return target


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
def page(browser, html):
    """The page, opened once; nothing may be asked for, and nothing said on its console."""
    said = []
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(html.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    context.on("request", lambda request: said.append(request.url))
    page.set_default_timeout(SECONDS)
    yield page
    context.close()
    assert [text for text in said if not text.startswith("blob:")] == []


def checked(page, path: Path) -> str:
    """Empty where the page says VALID of a folder or a zip, else its reason."""
    page.set_input_files("#folder" if path.is_dir() else "#zip", path)
    page.wait_for_selector(ENDED)
    title, why = (page.inner_text(f"#verdict {tag}") for tag in ("strong", "span"))
    assert page.get_attribute("#verdict", "class") == {"VALID": "valid", "INVALID": "invalid"}.get(
        title, ""
    )
    assert page.is_visible("#theorem") is (title == "VALID")
    assert page.locator("#lines .failed").count() == (title == "INVALID")
    return "" if title == "VALID" else f"{title}: {why}"


def zipped(target: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return target


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_valid_bundle(page) -> None:
    assert checked(page, VALID) == ""
    lines = page.locator("#lines li")
    assert lines.count() == page.locator("#lines .shown").count() > 2
    assert any("norm <= " in line for line in lines.all_inner_texts())
    assert "Lipschitz constant" in page.inner_text("#statements")
    assert "exact real numbers" in page.inner_text("#trusted")
    rows = {
        row.split("\t")[0]: row.split("\t")[-1] for row in page.inner_text("#files").split("\n")
    }
    assert rows == {n: hashlib.sha256(d).hexdigest() for n, d in files_of(VALID).items()}
    assert page.title().startswith("VALID")


def test_level_float_is_about_what_the_network_computes(page) -> None:
    assert checked(page, FOLDER / "valid" / "level-float32-float64-network") == ""
    assert "each operation in float32, sums in float64" in page.inner_text("#statements")
    assert "floating-point numbers round" not in page.inner_text("#trusted")


INVALID = {
    reason: next(row for row in ROWS if row["reasons"] == [reason])
    for reason in sorted({row["reasons"][0] for row in ROWS if len(row["reasons"]) == 1})
}


@pytest.mark.parametrize("reason", INVALID)
def test_one_of_each_class(reason: str, page) -> None:
    said = checked(page, FOLDER / INVALID[reason]["bundle"])
    assert said.startswith("INVALID: ")
    assert class_of(said.removeprefix("INVALID: "), GO) == reason


def test_zips(page, tmp_path) -> None:
    good = files_of(VALID)
    target = tmp_path / "bundle.zip"
    assert checked(page, zipped(target, good)) == ""
    inside = {f"bundle/{name}": data for name, data in good.items()}
    assert checked(page, zipped(target, inside | {"bundle/": b"", "more.txt": b"1"})) == ""
    assert "more.txt" not in page.inner_text("#unread")
    assert checked(page, zipped(target, good | {"more.txt": b"1"})) == ""
    assert "more.txt" in page.inner_text("#unread")

    def refused(reason: str) -> None:
        said = checked(page, target)
        assert said.startswith("INVALID: the zip")
        assert reason in said

    for name in ("../proof.json", "/proof.json", "a/../b", "a\\b", "c:proof.json"):
        zipped(target, good | {name: b"1"})
        refused("not a path inside")
    zipped(target, good | {"Proof.json": b"1"})
    refused("stands twice")
    zipped(target, good | inside)
    refused("more than one")
    zipped(target, {"a/b/" + name: data for name, data in good.items()})
    refused("no file")
    zipped(target, good | {f"{k}": b"" for k in range(1000)})
    refused("entries")
    zipped(target, good | {"a": b"1", "a/b": b"2"})
    refused("a file and a folder")
    with zipfile.ZipFile(zipped(target, good), "a") as file:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    refused("is not a file")
    with zipfile.ZipFile(zipped(target, good), "a", zipfile.ZIP_LZMA) as file:
        file.writestr("packed", b"1")
    refused("unknown way")
    target.write_bytes(zipped(target, good).read_bytes()[:-30])
    refused("cannot be read")
    target.write_bytes(b"")
    refused("cannot be read")
    target.write_bytes(declared(zipped(target, good), 1 << 30))
    refused("too large")
    target.write_bytes(declared(zipped(target, good), 1 << 28))
    refused("cannot have")
    for size in (-1, 1):  # of what it unpacks to
        wrong = len(good["tensors.safetensors"]) + size
        target.write_bytes(declared(zipped(target, good), wrong))
        assert "cannot be read, or grows" in checked(page, target)


def declared(file: Path, size: int) -> bytes:
    """A zip whose directory says another size of the tensors."""
    data = bytearray(file.read_bytes())
    name = b"tensors.safetensors"
    at = data.rindex(name) - 46  # its entry in the directory
    assert data[at : at + 4] == b"PK\1\2"
    data[at + 24 : at + 28] = size.to_bytes(4, "little")
    return bytes(data)


def test_a_drop(page, tmp_path) -> None:
    """Of a folder, of a zip, of loose files; two folders are one too many."""
    devices = page.context.new_cdp_session(page)
    page.evaluate("() => scrollTo(0, 0)")

    def dropped(*paths: Path) -> str:
        page.evaluate("() => document.querySelector('#verdict').replaceChildren()")
        what = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            devices.send("Input.dispatchDragEvent", {"type": kind, "x": 9, "y": 9, "data": what})
        page.wait_for_selector(ENDED)
        return page.inner_text("#verdict strong")

    file = zipped(tmp_path / "bundle.zip", files_of(VALID))
    assert dropped(VALID) == dropped(file) == dropped(*VALID.iterdir()) == "VALID"
    assert dropped(VALID / "proof.json") == "INVALID"
    assert dropped(VALID, VALID.parent) == "No verdict"


def test_by_keyboard_and_narrow(page) -> None:
    page.set_viewport_size({"width": 340, "height": 700})
    assert page.evaluate("() => document.documentElement.scrollWidth") == 340
    for name in ("folder", "zip"):
        with page.expect_file_chooser():
            page.press(f"#{name}", "Enter")
    page.focus("#folder")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "zip"


def test_cancel(page, tmp_path) -> None:
    """The worker ends, the page goes on, and the next bundle has its own verdict."""
    folder = shutil.copytree(VALID, tmp_path / "bundle")
    record = json.loads((folder / "proof.json").read_text())
    record["about"] = "x" * (1 << 25)  # some seconds of reading
    (folder / "proof.json").write_text(json.dumps(record))
    page.set_input_files("#folder", folder)
    page.wait_for_function("() => worker !== null")
    page.click("#cancel")
    assert page.inner_text("#verdict strong") == "Cancelled"
    assert not page.is_visible("#running")
    assert page.evaluate("() => worker") is None
    assert page.evaluate("() => document.activeElement.id") == "folder"
    assert checked(page, VALID) == ""


@pytest.mark.parametrize("kept", [True, False])
def test_nothing_can_be_asked_for(kept: bool, browser, html, tmp_path) -> None:
    """The policy refuses what a changed script would do; without it, that is done."""
    text = html.read_text().replace("</body>", "<script>let bad</script></body>")
    changed = text if kept else text.replace("Content-Security-Policy", "none", 1)
    (tmp_path / "page.html").write_text(changed)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(2)
        page = browser.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        tries = """(address) => {
            const directives = [];
            const refused = (event) => directives.push(event.effectiveDirective);
            addEventListener("securitypolicyviolation", refused);
            fetch(address).catch(() => 0);
            new Image().src = address;
            const all = () => directives.concat(typeof bad);
            return new Promise((done) => setTimeout(() => done(all()), 300));
        }"""
        found = page.evaluate(tries, f"http://127.0.0.1:{server.getsockname()[1]}/")
        asked = True
        try:
            server.accept()[0].close()
        except TimeoutError:
            asked = False
        page.close()
    assert asked is not kept
    assert ({"connect-src", "img-src", "undefined"} <= set(found)) is kept


def test_policy_and_digests(html) -> None:
    text = html.read_text()
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == rules["connect-src"] == "'none'"
    assert "unsafe-inline" not in policy
    assert "unsafe-eval" not in policy.replace("'wasm-unsafe-eval'", "")
    assert not re.search(r"https?://(?!github\.com/golang)", re.sub("//.*", "", text))
    wasm = re.search('id="wasm">([^<]*)<', text)[1]
    assert hashlib.sha256(gzip.decompress(base64.b64decode(wasm))).hexdigest() in text


def test_colours_are_those_of_the_report() -> None:
    def colours(path: Path) -> list[list[str]]:
        names = "paper|card|ink|soft|rule|accent|warn|tint"
        return [
            re.findall(rf"--(?:{names}): #\w+", block)
            for block in re.findall(r":root {(.*?)}", path.read_text(), re.DOTALL)
            if "--paper" in block
        ]

    assert colours(build.HERE / "page.css") == colours(REPORT_CSS)


@pytest.mark.slow
def test_the_corpus(page, go) -> None:
    """The page says what the program says of each bundle, word by word."""
    native = functools.partial(verdict, go)
    wrong = [
        (row["bundle"], said, other)
        for row in ROWS
        if (said := checked(page, FOLDER / row["bundle"]))
        != (other := native(FOLDER / row["bundle"]))
    ]
    assert wrong == []
