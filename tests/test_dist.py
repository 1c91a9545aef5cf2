"""What is handed out: sdist and wheel, and a machine that has the core's dependencies alone."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORPUS = ROOT / "src/onelip/checker/corpus"
CORE = ("torch", "numpy", "safetensors", "typing_extensions")


def said(*words, cwd):
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of an sdist and a wheel of what git tracks, made by ``make dist``."""
    pytest.importorskip("setuptools", minversion="77")
    if not (shutil.which("git") and shutil.which("make") and (ROOT / ".git").exists()):
        pytest.skip("a checkout with git and make is needed")
    listed = said("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    copy = tmp_path_factory.mktemp("checkout")
    for name in filter(None, listed.split("\0")):
        if not name.startswith("tables/") and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
    said("make", "dist", f"BIN={Path(sys.executable).parent}", "READY=", cwd=copy)
    return copy / "dist"


def core():
    """Return the core's dependencies and theirs, as pip would install them."""
    found, open_names = {}, list(CORE)
    while open_names:
        name = re.split(r"[^\w.-]", open_names.pop(), maxsplit=1)[0]
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another platform
            continue
        open_names += [line for line in found[name].requires or [] if "extra ==" not in line]
    return found.values()


@pytest.fixture(scope="module")
def machine(made, tmp_path_factory):
    """Return the programs of an environment with the wheel, and nothing but the core's needs."""
    place = tmp_path_factory.mktemp("machine") / "env"
    said(sys.executable, "-m", "venv", "--without-pip", place, cwd="/")
    (packages,) = place.glob("lib/python*/site-packages")
    for distribution in core():
        for file in distribution.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (packages / top).exists():
                (packages / top).symlink_to(distribution.locate_file(top))
    (wheel,) = made.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "--python", place / "bin/python", "install")
    said(*pip, "--quiet", "--no-deps", "--no-index", wheel, cwd=place)
    return place / "bin"


def test_the_wheel_has_what_is_read_at_run_time(made):
    (wheel,) = made.glob("*.whl")
    names = {*zipfile.ZipFile(wheel).namelist()}
    package = ROOT / "src" / "onelip"
    needed = [path for path in package.rglob("*") if path.is_file() and CORPUS not in path.parents]
    for path in needed:
        if "__pycache__" not in path.parts:
            assert str(path.relative_to(ROOT / "src")) in names
    assert not any("corpus" in name or name.startswith("tests") for name in names)


def test_the_sdist_has_tests_docs_and_corpus(made):
    (sdist,) = made.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "README.md", "Makefile"}
    needed |= {"docs/conf.py", "docs/tutorials/flows.ipynb", "examples/plot_monotone.py"}
    needed |= {"tests/test_pages.py", "tests/conftest.py", "src/onelip/checker/corpus/corpus.json"}
    assert needed <= names
    assert not any(name.startswith(("docs/api", "docs/gallery")) for name in names)


def test_metadata(made):
    (wheel,) = made.glob("*.whl")
    (name,) = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith(".dist-info/METADATA"))
    text = zipfile.ZipFile(wheel).read(name).decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", text, re.M)
    assert {name.replace("-", "_") for name in required} == {*CORE}
    version = re.search(r"^Version: (.*)$", text, re.M)[1]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_core_alone_imports_bounds_and_certifies(machine, tmp_path):
    said(
        machine / "python",
        "-c",
        "import onelip, torch\n"
        "from torch import nn\n"
        "assert 'env' in onelip.__file__, onelip.__file__\n"
        "net = nn.Sequential(nn.Flatten(), onelip.layers.UnitNormLinear(4, 3))\n"
        "assert onelip.certify(onelip.export(net.eval()), torch.rand(2, 4)).radius.min() >= 0\n"
        "try:\n    import scipy\nexcept ImportError:\n    pass\n"
        "else:\n    raise SystemExit('scipy is no dependency of the core')\n",
        cwd=tmp_path,
    )


def test_commands_of_the_wheel(machine, tmp_path):
    assert "onelip COMMAND" in said(machine / "onelip", "--help", cwd=tmp_path)
    bundles = json.loads((CORPUS / "corpus.json").read_text())["bundles"]
    for name in ("valid/map-dense", "valid/map-exponential", "valid/head-curvature-tanh"):
        assert any(entry["bundle"] == name for entry in bundles)
        lines = said(machine / "onelip", "check", CORPUS / name, cwd=tmp_path).splitlines()
        assert "VALID" in [line.strip() for line in lines]
    done = subprocess.run(
        [machine / "onelip", "check", CORPUS / "invalid/map-dense-norm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "INVALID" in done.stdout + done.stderr
