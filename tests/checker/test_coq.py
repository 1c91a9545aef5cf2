"""Proofs of what VALID rests on: they compile, assume what they say, and are about check.py."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from onelip.checker import check

CHECKER = Path(check.__file__).parent
SOURCE = CHECKER / "coq"
ROOT = CHECKER.parents[2]
NETWORK, LAST = ((SOURCE / f"{name}.v").read_text() for name in ("Network", "Valid"))
THEOREMS = re.findall(
    r"^Theorem (\w+)", "".join(path.read_text() for path in SOURCE.glob("*.v")), re.MULTILINE
)
LISTED, PRINTED = "Definition theorems :=\n  (", "Print Assumptions theorems."
ASSUMED = "more is assumed than the axioms of the real numbers"
LOOP = """Unset Guard Checking.
Fixpoint loop (n : nat) : 0 = 1 := loop n.
Set Guard Checking.
Definition wrong := loop O.
"""


@pytest.fixture
def coqc() -> None:
    if shutil.which("coqc") is None:
        pytest.skip("no coqc here: the proofs are not compiled")


def compiled(folder: Path, changes: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run compile.sh on a copy in which strings of Valid.v are others."""
    shutil.copytree(SOURCE, folder)
    text = LAST
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "Valid.v").write_text(text)
    command = ["sh", str(folder / "compile.sh")]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.usefixtures("coqc")
def test_they_compile_and_say_one_line() -> None:
    made = subprocess.run(
        ["make", "-s", "coq"], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert made.returncode == 0, made.stderr
    assert re.fullmatch(r"\d+ theorems are proved, .*\n", made.stdout)


def test_no_coqc_passes_with_a_word(tmp_path) -> None:
    (tmp_path / "dirname").symlink_to(shutil.which("dirname") or "")
    made = subprocess.run(
        [shutil.which("sh") or "sh", str(SOURCE / "compile.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stdout) == (0, "no coqc here, no proof is checked\n")


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({LISTED: f"Axiom wrong : 0 = 1.\n{LISTED}wrong, "}, ASSUMED),
        ({LISTED: f"Theorem wrong : 0 = 1.\nAdmitted.\n{LISTED}wrong, "}, ASSUMED),
        ({LISTED: f"{LOOP}{LISTED}wrong, "}, ASSUMED),
        ({PRINTED: ""}, "no list of axioms"),
    ],
)
def test_axioms_are_refused(changes, message, tmp_path) -> None:
    made = compiled(tmp_path / "proofs", changes)
    assert made.returncode != 0
    assert message in made.stderr


# what check.py compares, and something weaker, for which the proofs must break
WEAKER = {
    "frobenius n n R <= rho -> ": "",
    "e <= c -> t + rho <=": "t + rho <=",
    "e <= c ->\n    frobenius m n G *": "frobenius m n G *",
    "t + rho <= ((c - e) / u) * ((c - e) / u) ->": "t <= ((c - e) / u) * ((c - e) / u) ->",
    "/\\ checked_maps (rows f) rest m": "/\\ checked_maps n rest m",
    "| f :: rest => claim f * norms rest": "| f :: rest => Rmax (claim f) (norms rest)",
    "low <= 1 <= high /\\ forall": "forall",
    "(j < n)%nat /\\ i <> j": "(j < n)%nat",
    "(forall j, (j < n)%nat -> seen m w p j <= c * c)": "True",
    "(forall j, (j < n)%nat -> sum m (fun i => taken index i j) <= c * c) ->": "",
    "(forall i, (i < n)%nat -> Rabs (d i) <= c) ->": "",
    "* Rmax (highest act) (- lowest act) * norms outer in": "* highest act * norms outer in",
    "least + norms maps <= bound": "Rmax least (norms maps) <= bound",
    "act (rows f) /\\ 0 <= h /\\": "act (rows f) /\\",
    "(1 - reach * Rmin (lowest act) 0)": "1",
    "bounds (blocks N) * norms (last N) <= L": "bounds (blocks N) <= L",
    "| by_network : sqrt 2 * (bounds": "| by_network : (bounds",
    "(G j)) + 2 * e) <= K": "(G j))) <= K",
    "matrix W i l = u * G i l + E i l": "True",
    "A i j = B i j": "True",
    "r * K < v y - v j - sqrt 2 * e": "r * K < v y - v j - e",
    "norm m (sub v (run N x)) <= e /\\": "",
}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("coq")
    for name in ("Vectors", "Norms", "Maps", "Groups", "Kernel", "Network", "Valid"):
        shutil.copy(SOURCE / f"{name}.v", folder)
        assert coq(folder, name).returncode == 0
    return folder


def coq(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    command = ["coqc", "-q", "-Q", ".", "Onelip", f"{name}.v"]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
def test_hypotheses_can_hold(libraries) -> None:
    shutil.copy(Path(__file__).parent / "examples.v", libraries)
    made = coq(libraries, "examples")
    assert made.returncode == 0, made.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("coqc")
@pytest.mark.parametrize("old", WEAKER)
def test_nothing_follows_from_less(old: str, libraries) -> None:
    assert NETWORK.count(old) == 1
    proofs = LAST.replace("Groups Kernel Network.", "Groups Kernel.")
    assert proofs != LAST
    (libraries / "Weaker.v").write_text(NETWORK.replace(old, WEAKER[old]) + proofs)
    made = coq(libraries, "Weaker")
    assert made.returncode != 0
    assert "Error" in made.stderr
    assert "Syntax error" not in made.stderr


def test_each_theorem_is_listed() -> None:
    listed = re.search(r"Definition theorems :=\s*\((.*?)\)\.", LAST, re.DOTALL)
    assert listed is not None
    assert set(THEOREMS) == set(re.findall(r"\w+", listed[1]))


def test_the_page_quotes_the_checker() -> None:
    page = (SOURCE / "README.md").read_text()
    rows = re.findall(r"^\|(.*)\|.*\|(.*)\|$", page, re.MULTILINE)
    files = [CHECKER / "check.py", *(CHECKER / "kinds").glob("*.py")]
    code = "".join(path.read_text() for path in files)
    quotes = [quote for _, place in rows for quote in re.findall(r"`(.*?)`", place)]
    assert len(quotes) > 15
    for quote in quotes:
        assert quote in code, quote
    named = {name for theorems, _ in rows for name in re.findall(r"`(.*?)`", theorems)}
    assert len(named) > 10
    assert named <= set(THEOREMS)
