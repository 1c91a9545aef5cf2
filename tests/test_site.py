"""The documentation site: it builds without a warning and without a network."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
LOADED = re.compile(r'<(?:script|img|iframe|link)\b[^>]*?(?:src|href)="(https?:)?//[^>]*>')


def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path):
    for name in ("sphinx", "myst_nb", "furo", "sphinx_gallery"):
        pytest.importorskip(name, reason="the site needs pip install 'onelip[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs", tmp_path],
        env=os.environ | {"EXECUTE": "0", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    pages = sorted(tmp_path.rglob("*.html"))
    assert {"index.html", "glossary.html", "api/onelip.layers.html"} <= {
        str(page.relative_to(tmp_path)) for page in pages
    }
    for page in pages:
        assert not LOADED.search(page.read_text(encoding="utf-8")), page
    layers = (tmp_path / "api" / "onelip.layers.html").read_text(encoding="utf-8")
    assert 'id="onelip.layers.CholeskyLinear"' in layers
    assert 'class="field-odd">Shape' in layers


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"])
def test_links_inside_the_checkout_lead_somewhere(name):
    pages = sorted((ROOT / name).glob("*.md")) if name == "docs" else [ROOT / name]
    for page in pages:
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            made = page.parent.name == "docs" and target.startswith(("api/", "gallery/"))
            assert made or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_stored_as_it_ran_once_from_the_top(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    assert any(cell["outputs"] for cell in code)
    for cell in code:
        text = json.dumps(cell["outputs"])
        assert '"error"' not in text
        assert "Traceback" not in text
        assert "onelip: " not in text, "a command ended with an error"
        assert "/tmp/" not in text


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, tmp_path):
    pytest.importorskip("nbclient")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    subprocess.run([sys.executable, ROOT / "docs" / "execute.py", copy], check=True, timeout=600)
